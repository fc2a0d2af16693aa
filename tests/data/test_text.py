"""A text becomes windows that meet without a gap, in parts that share no character."""

import random

import numpy as np
import pytest
import torch

import localearn
from localearn import MLP, Backprop, Block, Net, Unsupported, UserError
from localearn.data import Split, from_arrays, text
from localearn.data.text import help_topics, read_text
from localearn.data.tokens import UNKNOWN, Characters, Unit
from localearn.inputs import InputSpec
from localearn.nets import PerPosition
from localearn.tasks import LanguageModelling
from localearn.tasks.language import PADDING

SPLITS: tuple[Split, ...] = ("train", "val", "test")
OTHERS: tuple[tuple[int, Unit], ...] = ((8, "characters"), (16, "bytes"))


def written(count=1000, seed=0, letters="abcdefgh \n"):
    draw = random.Random(seed)
    return "".join(draw.choice(letters) for _ in range(count))


@pytest.fixture(autouse=True)
def kept_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALEARN_DATA", str(tmp_path / "data"))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(written(), encoding="utf-8")
    return path


def rows(data, split):
    batches = list(data.batches(split, 7))
    return torch.cat([b.x for b in batches]), torch.cat([b.target for b in batches])


def counted(data, split):
    """Return a split's text, from its first token and what follows the positions that count."""
    x, y = rows(data, split)
    flat = y.flatten()
    return data.codec.decode([int(x[0, 0]), *flat[flat != PADDING].tolist()])


@pytest.mark.parametrize("unit", ["characters", "bytes", "bpe"])
def test_the_parts_are_the_text_in_order(file, unit):
    data = text(file, unit=unit, window=16)
    whole = file.read_text(encoding="utf-8")
    assert data.kind == "text" and data.input_shape == (16,)
    assert counted(data, "val") == whole[800:900]
    assert counted(data, "test") == whole[900:]
    train = counted(data, "train")
    assert whole.startswith(train) and len(whole[:800]) - len(train) < (16 if unit != "bpe" else 16 * 5)


def test_a_target_is_the_token_after_its_position(file):
    data = text(file, window=16)
    for split in SPLITS:
        x, y = rows(data, split)
        assert x.dtype == y.dtype == torch.int64 and x.shape == y.shape == (data.sizes[split], 16)
        within = y[:, 1:] != PADDING
        assert torch.equal(x[:, 1:][within], y[:, :-1][within])
        real = y[:, -1] != PADDING
        assert torch.equal(x[1:, 0], y[:-1, -1]) and bool(real[:-1].all())
    assert (rows(data, "train")[1] != PADDING).all()


@pytest.mark.parametrize("stride", [1, 5, 16, 20])
def test_training_windows_begin_a_stride_apart(file, stride):
    data = text(file, window=16, stride=stride)
    ids = data.codec.encode(file.read_text(encoding="utf-8")[:800])
    x, y = rows(data, "train")
    assert len(x) == (len(ids) - 1 - 16) // stride + 1
    for n in (0, 1, len(x) - 1):
        np.testing.assert_array_equal(x[n], ids[n * stride : n * stride + 16])
        np.testing.assert_array_equal(y[n], ids[n * stride + 1 : n * stride + 17])
    assert data.sizes["val"] == text(file, window=16).sizes["val"]


def test_byte_pairs_are_learned_once_from_the_training_part_alone(file, tmp_path):
    first = text(file, unit="bpe", window=16, vocabulary=300, data_dir=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").glob("text-bpe-*.npz")
    written = kept.stat().st_mtime_ns
    again = text(file, unit="bpe", window=16, vocabulary=300, data_dir=tmp_path / "kept")
    assert kept.stat().st_mtime_ns == written
    assert (again.codec, again.fingerprint()) == (first.codec, first.fingerprint())
    text(file, unit="bpe", window=16, vocabulary=290, data_dir=tmp_path / "kept")
    assert len(list((tmp_path / "kept").glob("*.npz"))) == 2
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[:800] + "zzzz" * 50, encoding="utf-8")
    other = text(file, unit="bpe", window=16, vocabulary=300, data_dir=tmp_path / "kept")
    assert other.codec == first.codec, "what is held out is no part of the vocabulary"


def test_overlapping_windows_take_the_memory_of_the_text_alone():
    data = text(window=64, stride=1)
    held = data._x["train"]
    assert held.untyped_storage().nbytes() < 1.1 * 8 * len(help_topics())
    assert len(held) > 300_000


def test_the_embedded_text_is_pythons_own_help():
    data = text()
    assert data.name == "text" and data.vocabulary == data.codec.size < 200
    assert isinstance(data.task, LanguageModelling) and data.task.characters_per_token == 1
    topics = help_topics()
    assert len(topics) > 300_000 and "assert" in topics
    assert data.notes[0].startswith(f"{len(topics):,} characters")
    assert localearn.load("text", window=32).input_shape == (32,)


@pytest.mark.parametrize("unit", ["bytes", "bpe"])
def test_bits_are_of_a_character_whatever_a_token_is(tmp_path, unit):
    path = tmp_path / "mine.txt"
    path.write_text(written(2000, letters="äöü abc"), encoding="utf-8")
    data = text(path, unit=unit, window=8)
    tokens = sum(int((rows(data, split)[1] != PADDING).sum()) + 1 for split in ("val", "test"))
    assert isinstance(data.task, LanguageModelling)
    assert data.task.characters_per_token == pytest.approx(400 / tokens)
    assert (data.task.characters_per_token < 1) == (unit == "bytes")


def test_characters_that_training_lacks_are_the_unknown_token_and_told(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("ab" * 450 + "abz" * 30 + "abyz" * 30, encoding="utf-8")
    data = text(path, window=8)
    assert isinstance(data.codec, Characters) and data.codec.characters == f"ab{UNKNOWN}" and data.vocabulary == 3
    (note,) = data.notes[1:]
    assert note.startswith("90 characters of the validation and test parts, 2 different ones (y z), are not in the")


def test_the_fingerprint_is_of_text_and_options(file):
    prints = {text(file, window=16).fingerprint() for _ in range(2)}
    prints |= {text(file, window=w, unit=u).fingerprint() for w, u in OTHERS}
    prints.add(text(file, window=16, val_fraction=0.2).fingerprint())
    assert len(prints) == 4
    file.write_text(written(seed=1), encoding="utf-8")
    assert text(file, window=16).fingerprint() not in prints


@pytest.mark.parametrize(
    ("raw", "options"),
    [
        (b"a\r\nb\rc\n", {}),
        ("a\nb\nc\n".encode("utf-8-sig"), {}),
        ("a\nb\nc\n".encode("utf-16"), {}),
        ("a\nb\nc\n".encode("utf-32"), {}),
        ("a\nb\nc\n".encode("utf-16-le"), {"encoding": "utf-16-le"}),
    ],
)
def test_marks_and_line_breaks_leave_no_trace(tmp_path, raw, options):
    path = tmp_path / "mine.txt"
    path.write_bytes(raw)
    assert read_text(path, **options) == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        (None, {}, r"mine\.txt does not exist; give dataset\.path="),
        (b"", {}, r"mine\.txt is empty"),
        (b" \n\n", {}, r"mine\.txt is empty"),
        (b"ab\ncaf\xe9 noir\n", {}, r"mine\.txt is no utf-8 text: byte 6, in line 2, is none; give encoding=latin-1"),
        (b"ab\0cd", {}, r"mine\.txt holds null characters"),
        ("abc".encode("utf-16-le"), {}, "holds null characters.* say encoding=utf-16"),
        (b"\x89PNG\r\n\x1a\n\0\0", {}, r"mine\.txt is no utf-8 text"),
        (b"abc", {"encoding": "utf8000"}, "no encoding 'utf8000'"),
        (b"abcdefgh" * 4, {}, r"the train part of 32 characters has 26 tokens; 129 are needed, .*window=25 or less"),
        (b"abcdefgh" * 2, {"window": 2}, r"the val part of 16 characters has 2 tokens|"),
        (b"abcdefgh", {"window": 2}, r"the val part of 8 characters has 1 tokens; 2 are needed"),
        (b"abcdefgh" * 40, {"vocabulary": 7}, r"mine\.txt has 8 different characters, and vocabulary=7; use a larger"),
        (b"abcdefgh" * 40, {"unit": "words"}, "unit must be characters, bytes or bpe, not 'words'"),
        (b"abcdefgh" * 40, {"unit": "bpe", "vocabulary": 256}, "bpe begins with 256 bytes"),
        (b"abcdefgh" * 40, {"unit": "bytes", "vocabulary": 100}, "there are 256 bytes"),
        (
            b"abcdefgh" * 40,
            {"unit": "bpe", "vocabulary": 10**9},
            "vocabulary is 1000000000; .* at most 1048576",
        ),
        (b"abcdefgh" * 40, {"encoding": "rot13"}, "no encoding 'rot13'"),
        (b"abcdefgh" * 40, {"encoding": "base64"}, "no encoding 'base64'"),
        (b"abcdefgh" * 40, {"window": 2.5}, "window must be a whole number, not 2.5"),
        (b"a" * 400, {"window": 2}, r"mine\.txt: the train part is token 0 at every position"),
        (b"abcdefgh" * 40, {"window": 0}, "window is 0; it must be at least 1"),
        (b"abcdefgh" * 40, {"stride": 0}, "stride is 0; it must be at least 1"),
        (b"abcdefgh" * 40, {"val_fraction": 0.6, "test_fraction": 0.4}, "leave nothing to train on"),
        (b"abcdefgh" * 40, {"test_fraction": 1.5}, "test_fraction is 1.5"),
    ],
)
def test_what_cannot_be_learned_from_is_told_in_a_line(tmp_path, raw, options, message):
    path = tmp_path / "mine.txt"
    if raw is not None:
        path.write_bytes(raw)
    if message.endswith("|"):
        text(path, **options)  # the smallest text that there is
        return
    with pytest.raises(UserError, match=message) as told:
        text(path, **options)
    assert len(str(told.value).splitlines()) == 1


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder; a text file is expected"):
        text(tmp_path)


def per_position(op, classes, window=16):
    """Return a net of tokens whose block is one map of each row."""
    blocks = [Block(torch.nn.Sequential(torch.nn.Embedding(classes, 4), op))]
    return Net(blocks, torch.nn.Linear(4, classes), takes=InputSpec((window,), classes), view=PerPosition())


class Mixed(torch.nn.Module):
    """Each position has the mean of all."""

    def forward(self, h):
        return h + h.mean(1, keepdim=True)


def test_nets_that_do_not_fit_text_are_refused_with_what_would_work(file):
    data = text(file, window=16)
    tokens = data.codec.size
    with pytest.raises(Unsupported, match="takes values, and text has 10 tokens; use net=transformer, gru or lstm"):
        Backprop.supports(MLP((16,), tokens), data)
    Backprop.supports(per_position(torch.nn.Linear(4, 4), tokens), data)
    with pytest.raises(Unsupported, match="sees the tokens that text has it predict"):
        Backprop.supports(per_position(Mixed(), tokens), data)
    pooled = localearn.Transformer((16,), tokens, vocabulary=tokens, layers=1, width=8, heads=2, reads="pooled")
    with pytest.raises(Unsupported, match="one output a row, and text a target at each position; use net"):
        Backprop.supports(pooled, data)
    wider = localearn.Transformer((16,), tokens, vocabulary=tokens + 1, layers=1, width=8, heads=2)
    with pytest.raises(Unsupported, match="takes 11 tokens, and text has 10 tokens"):
        Backprop.supports(wider, data)


def test_token_ids_of_your_own_are_text_whose_targets_say_whether_a_net_may_look_ahead():
    ids = torch.randint(7, (40, 9), generator=torch.Generator().manual_seed(0))
    after = torch.cat([ids[:, 1:], torch.full((40, 1), PADDING)], dim=1)
    task = LanguageModelling(7)
    data = from_arrays(ids, after, vocabulary=7, task=task)
    tagged = from_arrays(ids, ids.flip(1), vocabulary=7, task=task)
    labelled = from_arrays(ids, ids[:, 0] % 2, vocabulary=7)
    assert (data.continues, tagged.continues, labelled.continues) == (True, False, False)
    assert {data.kind, tagged.kind, labelled.kind} == {"text"}
    net = per_position(Mixed(), 7, 9)
    with pytest.raises(Unsupported, match="sees the tokens that arrays has it predict"):
        Backprop.supports(net, data)
    Backprop.supports(net, tagged)
    pooled = localearn.Transformer((9,), 2, vocabulary=7, layers=1, width=8, heads=2, reads="pooled")
    Backprop.supports(pooled, labelled)


def test_sequences_of_your_own_are_learned_by_a_recurrent_net(tmp_path):
    x = torch.randn(400, 8, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, :, 0].sum(1) > 0).long()
    data = from_arrays(x, y, layout="ntd")
    assert data.kind == "sequence" and data.input_shape == (8, 2)
    torch.manual_seed(0)
    record = localearn.MonoForward(localearn.Recurrent((8, 2), 2, widths=(8, 8))).fit(data, epochs=12, device="cpu")
    accuracy = record.metric("accuracy")
    assert accuracy is not None and accuracy > 0.85
    np.savez(tmp_path / "mine.npz", x=x.numpy(), y=y.numpy())
    again = localearn.load("npz", path=tmp_path / "mine.npz", layout="ntd")
    assert again.kind == "sequence" and again.input_shape == (8, 2)


def test_a_net_with_an_output_at_each_position_is_refused_for_one_target_a_row():
    x, y = torch.randn(30, 5, 3), torch.arange(30) % 2
    data = from_arrays(x, y, layout="ntd")
    assert data.kind == "sequence"
    net = localearn.Recurrent((5, 3), 2, widths=[4], reads="positions")
    with pytest.raises(
        Unsupported, match=r"has an output at each position, and .* one target a row; use net\.reads=last"
    ):
        Backprop.supports(net, data)
    Backprop.supports(localearn.Recurrent((5, 3), 2, widths=[4]), data)
