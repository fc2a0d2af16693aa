"""Text as windows of tokens, each continued by the token that follows: `text` and the data set that it returns."""

import codecs
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from localearn.data import files
from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.generation import continuation
from localearn.data.partition import check_fraction
from localearn.data.tokens import LARGEST, UNKNOWN, BytePairs, Bytes, Characters, Codec, Unit
from localearn.errors import UserError
from localearn.files import is_text_encoding, kind_of_file, replace_text
from localearn.options import checked_call
from localearn.printing import log_notes, one_line
from localearn.tasks.language import PADDING, LanguageModelling

NAME = "text"
BPE_TOKENS = 1024  # by default
SAMPLE_TOKENS = 400
SAMPLE_TEMPERATURE = 0.8
SAMPLE_LINES = 6  # printed at the end of a run
MOST_BYTES = 2 * 2**30  # of a file: as token ids it takes eight times its size in memory

_MARKS = {  # the longer ones first, for one begins with another
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class TextData(ArrayData):
    """Hold windows of a text's tokens, (N, T), each with the token that follows every position, and the vocabulary.

    Args:
        name: the data set's name in records.
        x: for each split the windows, (N, T) int64.
        y: for each split the tokens that follow, (N, T) int64, `PADDING` where none does.
        codec: the map from text to tokens and back.
        task: its `LanguageModelling`.

    """

    continues = True

    def __init__(
        self, name: str, x: Mapping[Split, Tensor], y: Mapping[Split, Tensor], codec: Codec, task: LanguageModelling
    ):
        super().__init__(name, x, y, 0, task=task, vocabulary=codec.size)
        self.codec: Codec = codec

    def illustrate(self, predict: Callable[..., Tensor], folder: Path) -> tuple[str, ...]:
        """Write sample.txt, in which the model continues the beginning of the test part; return its first lines."""
        x = self._x["test"]
        window = x.shape[1]
        ids = x[0, : max(1, window // 4)].tolist()
        written = continuation(
            predict, ids, window, length=SAMPLE_TOKENS, temperature=SAMPLE_TEMPERATURE, seed=0, device=x.device
        )
        prompt, sample = self.codec.decode(ids), self.codec.decode(written)
        path = Path(folder) / "sample.txt"
        replace_text(path, f"{prompt}{sample}\n")
        lines = [line for line in sample.splitlines() if line.strip()][:SAMPLE_LINES]
        return (
            f"a sample that continues the beginning of the test part is in {path}:",
            *(f"  {one_line(s)}" for s in lines),
        )


@checked_call
def text(
    path: str | Path | None = None,
    *,
    unit: Unit = "characters",
    vocabulary: int | None = None,
    window: int = 128,
    stride: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    encoding: str = "utf-8",
    data_dir: str | Path | None = None,
) -> TextData:
    """Load a text as a data set for language modelling: its beginning for training, then validation, then test.

    Each split is cut into windows of T tokens, in order; a window's target is the token that follows each of its
    positions. Every position of the validation and test parts but the first counts once, seen from the beginning of its
    window: the last window is padded. The training part's last, incomplete window is left out.

    Args:
        path: a text file. None: the topics of Python's own help, `pydoc_data.topics`, English of some 465,000
            characters, which differ from one version of Python to another.
        unit: the kind of token: "characters", "bytes" of UTF-8, or "bpe", byte pairs that are learned from the training
            part by the `tokenizers` library. A character that the training part lacks is an unknown token.
        vocabulary: of bpe the number of tokens, 1024 by default; of characters the largest number allowed.
        window: T.
        stride: from one training window to the next; None: T, so that none overlap.
        val_fraction: the share of the text for validation.
        test_fraction: the share of the text, at its end, for the test.
        encoding: of the file; a byte-order mark takes precedence over it.
        data_dir: where the ids of byte pairs are cached once they are learned; default LOCALEARN_DATA, else
            ~/.cache/localearn.

    Raises:
        UserError: for a file that does not exist, is empty, or no text of that encoding; a text shorter than a window
            in its training part, or two tokens in another; more characters than `vocabulary`; options out of their
            range.

    Example:
        data = localearn.data.text("corpus.txt", unit="bpe", window=64)
        net = localearn.Transformer(data.input_shape, data.vocabulary, vocabulary=data.vocabulary)

    """
    _check_options(unit, vocabulary, window, stride)
    check_fraction("val", val_fraction)
    check_fraction("test", test_fraction)
    if val_fraction + test_fraction >= 1:
        raise UserError(f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing to train on")
    where = NAME if path is None else str(path)
    content = help_topics() if path is None else read_text(Path(path).expanduser(), encoding)
    parts = _split(where, content, val_fraction, test_fraction)
    codec: Codec
    ids: dict[Split, np.ndarray]
    if unit == "bpe":
        codec, ids, notes = _byte_pairs(parts, vocabulary or BPE_TOKENS, files.data_folder(data_dir))
    else:
        codec, notes = (Bytes(), []) if unit == "bytes" else _characters(where, parts, vocabulary)
        ids = {split: codec.encode(part) for split, part in parts.items()}
    x: dict[Split, Tensor] = {}
    y: dict[Split, Tensor] = {}
    for split, tokens in ids.items():
        least = window + 1 if split == "train" else 2
        if len(tokens) < least:
            what = f"{least} are needed, a window and the one after it" if split == "train" else "2 are needed"
            smaller = f"; use dataset.window={len(tokens) - 1} or less" if split == "train" and len(tokens) > 1 else ""
            raise UserError(
                f"{where}: the {split} part of {len(content)} characters has {len(tokens)} tokens; {what}{smaller}"
            )
        x[split], y[split] = _windows(tokens, window, (stride or window) if split == "train" else None)
    LanguageModelling(codec.size).check_learnable(f"{where}: the train part", y["train"])
    sizes_of = {split: (len(parts[split]), len(ids[split])) for split in ("val", "test")}
    characters, tokens = (sum(pair[i] for pair in sizes_of.values()) for i in (0, 1))
    data = TextData(NAME, x, y, codec, LanguageModelling(codec.size, characters / tokens))
    sizes = ", ".join(f"{split} {len(ids[split]):,}" for split in parts)
    data.notes = (f"{len(content):,} characters, {codec.size:,} {unit} as tokens, in order: {sizes}", *notes)
    log_notes(where, notes)
    return data


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the content of a text file, its line breaks as line feeds.

    Args:
        path: the file.
        encoding: its encoding, by Python's name.

    Raises:
        UserError: in a line, where it does not exist, is no regular file, too large, empty, or no text of the encoding.

    """
    if not is_text_encoding(encoding):
        raise UserError(f"no encoding {encoding!r}; use utf-8, latin-1, utf-16 or another that Python knows")
    try:
        there = kind_of_file(path)
        if not there:
            raise UserError(f"{path} does not exist; give dataset.path= of a text file")
        if there != "file":
            other = "a folder" if there == "folder" else "no regular file"
            raise UserError(f"{path} is {other}; a text file is expected")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{path} has more than {MOST_BYTES // 2**30} GiB, which are held in memory; use a part of it"
            )
        raw = path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError is a null byte in the path
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), encoding)
    try:
        content = raw.decode(encoding)
    except (UnicodeDecodeError, UnicodeError) as error:
        at = getattr(error, "start", 0)
        line = raw.count(b"\n", 0, at) + 1
        others = "encoding=latin-1" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else "another encoding="
        raise UserError(
            f"{path} is no {encoding} text: byte {at}, in line {line}, is none; give {others}, or convert it"
        ) from error
    if "\0" in content:
        raise UserError(f"{path} holds null characters, so it is no text, or of another encoding, say encoding=utf-16")
    if not content.strip():
        raise UserError(f"{path} is empty; a text to be learned from is expected")
    return content.replace("\r\n", "\n").replace("\r", "\n")


def help_topics() -> str:
    """Return the topics of Python's own help, in alphabetical order."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:  # a Python that was built without it
        raise UserError("this Python has no pydoc_data.topics; give dataset.path= of a text file") from error
    return "\n".join(topics[name].strip() + "\n" for name in sorted(topics))


def _check_options(unit: Unit, vocabulary: int | None, window: int, stride: int | None) -> None:
    if window < 1:
        raise UserError(f"window is {window}; it must be at least 1")
    if stride is not None and stride < 1:
        raise UserError(f"stride is {stride}; it must be at least 1, or null for one window after another")
    if unit == "bytes" and vocabulary not in (None, 256):
        raise UserError(f"there are 256 bytes, so vocabulary={vocabulary} cannot be had; leave it out, or use unit=bpe")
    if unit == "bpe" and vocabulary is not None and vocabulary <= 256:
        raise UserError(
            f"bpe begins with 256 bytes, so vocabulary must be more than that, not {vocabulary}; or use bytes"
        )
    if vocabulary is not None and vocabulary > LARGEST:  # for which byte pairs allocate so much memory at once
        raise UserError(f"vocabulary is {vocabulary}; it must be at most {LARGEST}")
    if vocabulary is not None and vocabulary < 1:
        raise UserError(f"vocabulary is {vocabulary}; it must be at least 1")


def _split(where: str, content: str, val_fraction: float, test_fraction: float) -> dict[Split, str]:
    """Return the beginning of a text, what follows and its end, by their shares of the characters."""
    tested, validated = round(len(content) * test_fraction), round(len(content) * val_fraction)
    trained = len(content) - validated - tested
    return {
        "train": content[:trained],
        "val": content[trained : trained + validated],
        "test": content[trained + validated :],
    }


def _byte_pairs(
    parts: Mapping[Split, str], size: int, folder: Path
) -> tuple[BytePairs, dict[Split, np.ndarray], list[str]]:
    """Return the byte pairs of the training part, all ids, and notes; cached in the folder by the text's hash."""
    digest = hashlib.sha256(f"{size} {BytePairs.library_version()}".encode())
    for part in parts.values():
        digest.update(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest())
    path = folder / f"text-bpe-{digest.hexdigest()[:16]}.npz"
    if path.exists():
        stored = files.read(path, ("tokenizer", *parts))
        codec = BytePairs(stored["tokenizer"].tobytes().decode(errors="replace"))
    else:
        codec = BytePairs.learned(parts["train"], size)
        state = np.frombuffer(codec.state().encode(), dtype=np.uint8)
        stored = {"tokenizer": state, **{split: codec.encode(part).astype(np.int32) for split, part in parts.items()}}
        files.store(path, stored)
    ids: dict[Split, np.ndarray] = {split: stored[split].astype(np.int64) for split in parts}
    return codec, ids, [f"there are {codec.size} byte pairs to be learned, not {size}"] * (codec.size < size)


def _characters(where: str, parts: Mapping[Split, str], vocabulary: int | None) -> tuple[Characters, list[str]]:
    """Return the characters of the training part, and notes of those that only the others have."""
    known = set(parts["train"])
    lacking = (set(parts["val"]) | set(parts["test"])) - known
    notes = []
    if lacking:
        known.add(UNKNOWN)
        shown = " ".join(sorted(lacking)[:10])
        count = sum(parts[split].count(character) for split in ("val", "test") for character in lacking)
        notes.append(
            f"{count} characters of the validation and test parts, {len(lacking)} different ones "
            f"({one_line(shown)}), are not in the training part: they are the unknown token"
        )
    if vocabulary is not None and len(known) > vocabulary:
        raise UserError(
            f"{where} has {len(known)} different characters, and vocabulary={vocabulary}; use a larger one, or "
            "unit=bytes"
        )
    return Characters("".join(sorted(known))), notes


def _windows(tokens: np.ndarray, window: int, stride: int | None) -> tuple[Tensor, Tensor]:
    """Return windows, (N, T), of tokens, (n,), and the token that follows each position.

    Args:
        tokens: (n,).
        window: T.
        stride: from one window to the next, the last incomplete one left out; None: T, the last one padded.

    """
    x, y = torch.from_numpy(tokens[:-1].copy()), torch.from_numpy(tokens[1:].copy())
    if stride is not None:
        # Views, which take no memory of their own, however much they overlap.
        return x.unfold(0, window, stride), y.unfold(0, window, stride)
    lacking = -len(x) % window
    x, y = torch.cat([x, x.new_zeros(lacking)]), torch.cat([y, y.new_full((lacking,), PADDING)])
    return x.view(-1, window), y.view(-1, window)
