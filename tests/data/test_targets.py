"""Every way to bring data takes every task that fits, and targets that it cannot take are refused with the remedy."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from localearn import UserError, load
from localearn.data import ArrayData, LoaderData, from_arrays, from_dataset, from_loader
from localearn.tasks import Autoencoding, Classification, MultiLabel, Regression

GENERATOR = np.random.RandomState(0)
ROWS = 60
X = GENERATOR.randn(ROWS, 5).astype(np.float32)
IMAGES = GENERATOR.randint(0, 256, (ROWS, 4, 6, 3), np.uint8)
VALUES = GENERATOR.randn(ROWS, 2) * [3, 40] + [1, 100]
TAGS = (GENERATOR.rand(ROWS, 4) < 0.4).astype(int)
YES = np.arange(ROWS) % 3 == 0


def rows_of(data, split="train"):
    (batch,) = data.batches(split, 2000)
    return batch


def split_of(x, *others):
    """Return parts of arrays for training, validation and test."""
    return [tuple(array[part] for array in (x, *others)) for part in (slice(0, 30), slice(30, 44), slice(44, ROWS))]


@pytest.mark.parametrize("x", [X, IMAGES, torch.from_numpy(X), IMAGES[..., 0]], ids=["rows", "images", "torch", "grey"])
@pytest.mark.parametrize(
    ("task", "y", "outputs"),
    [(Regression(), VALUES, 2), (Regression(), VALUES[:, 0], 1), (MultiLabel(), TAGS, 4), (MultiLabel(), YES, 1)],
    ids=["values", "value", "tags", "binary"],
)
def test_rows_of_every_kind_have_targets_of_every_task(x, task, y, outputs):
    data = from_arrays(x, y, task=task)
    assert data.task.outputs == outputs and data.classes == 0 and sum(data.sizes.values()) == ROWS
    assert data.kind == ("vector" if x.ndim == 2 else "image")
    batch = rows_of(data)
    assert batch.target.shape == (len(batch.x), outputs) and batch.target.dtype == torch.float32
    if isinstance(task, MultiLabel):
        assert set(batch.target.unique().tolist()) == {0.0, 1.0}
    else:
        torch.testing.assert_close(batch.target.mean(0), torch.zeros(outputs), atol=1e-5, rtol=0)


def test_a_binary_target_is_held_out_in_proportion():
    data = from_arrays(X, YES, task=MultiLabel())
    shares = [rows_of(data, split).target.mean().item() for split in ("train", "val", "test")]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.12) and all(0 < share < 1 for share in shares)


@pytest.mark.parametrize("normalize", ["standard", "unit", "none"])
@pytest.mark.parametrize("x", [X, IMAGES, IMAGES[..., 0], torch.from_numpy(X)], ids=["rows", "images", "grey", "torch"])
def test_the_target_of_an_autoencoder_is_its_input_and_decodes_to_the_raw_values(x, normalize):
    given = split_of(x)
    data = from_arrays(*given[0], x_val=given[1][0], x_test=given[2][0], normalize=normalize, task=Autoencoding())
    assert data.sizes == {"train": 30, "val": 14, "test": 16}
    assert isinstance(data.task, Autoencoding) and data.task.peak == (255 if x.dtype == np.uint8 else None)
    for split, (raw,) in zip(("train", "val", "test"), given, strict=True):
        batch = rows_of(data, split)
        assert torch.equal(batch.target, batch.x.flatten(1)) and batch.target.shape == (len(raw), data.task.outputs)
        raw = torch.as_tensor(raw)
        raw = raw.permute(0, 3, 1, 2) if raw.ndim == 4 else raw
        torch.testing.assert_close(data.task.decode(batch.target), raw.flatten(1).float(), rtol=1e-4, atol=1e-3)


def test_a_shuffled_and_augmented_autoencoder_is_to_give_what_it_was_given():
    data = from_arrays(IMAGES, augment="crop_flip", task=Autoencoding())
    plain = rows_of(data)
    for batch in data.batches("train", 16, generator=torch.Generator().manual_seed(0)):
        assert torch.equal(batch.target, batch.x.flatten(1))
    assert not any(torch.equal(row, other) for row in batch.x[:2] for other in plain.x)


def test_features_keep_the_target_of_an_autoencoder():
    data = from_arrays(IMAGES, task=Autoencoding())
    features = data.features("stage", lambda x: x.flatten(1)[:, :7] * 2, 16)
    before, after = rows_of(data, "val"), rows_of(features, "val")
    assert after.x.shape[1:] == (7,) and torch.equal(after.target, before.x.flatten(1))


def test_a_part_has_its_own_rows_as_targets():
    data = from_arrays(IMAGES, task=Autoencoding())
    parts = [rows_of(data.part(rank, 3), "test").target for rank in range(3)]
    assert torch.equal(torch.cat(parts), rows_of(data, "test").target)


def test_three_dimensions_are_sequences_where_the_layout_says_so_and_grey_images_elsewhere():
    x = GENERATOR.randn(ROWS, 7, 3) * [1, 10, 100] + [0, 5, 9]
    data = from_arrays(x, np.arange(ROWS) % 2, layout="ntd")
    assert (data.kind, data.input_shape) == ("sequence", (7, 3)) and from_arrays(x, YES).kind == "image"
    values = rows_of(data).x.flatten(0, 1)
    torch.testing.assert_close(values.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    whole = from_arrays(x, task=Autoencoding(), layout="ntd")
    batch = rows_of(whole, "test")
    raw = whole.task.decode(batch.target)
    assert raw.shape == (12, 21) and min((raw[0].view(7, 3) - torch.tensor(row)).abs().max() for row in x) < 1e-4
    with pytest.raises(UserError, match=r"x_train has shape \(60, 5\); sequences, \(N, T, D\)"):
        from_arrays(X, YES, layout="ntd")


def test_token_ids_stay_as_they_are():
    ids = GENERATOR.randint(0, 9, (ROWS, 7))
    data = from_arrays(ids, YES, vocabulary=9)
    assert (data.kind, data.takes.vocabulary, data.input_shape) == ("text", 9, (7,))
    assert rows_of(data).x.dtype == torch.int64 and rows_of(data).x.max() == 8
    tagged = from_arrays(torch.from_numpy(ids), TAGS, vocabulary=9, task=MultiLabel())
    assert rows_of(tagged).target.shape[1] == 4
    for wrong, message in (
        (ids + 1, "x_train holds 9; token ids run from 0 to 8"),
        (X, "x_train is float32 with shape"),
    ):
        with pytest.raises(UserError, match=message):
            from_arrays(wrong, YES, vocabulary=9)
    with pytest.raises(UserError, match="normalize=unit does not apply"):
        from_arrays(ids, YES, vocabulary=9, normalize="unit")


class Pictures(Dataset):
    classes = ("a", "b")

    def __init__(self, alone):
        self.alone = alone

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        picture = torch.from_numpy(IMAGES[i]).permute(2, 0, 1)
        return picture if self.alone else (picture, i % 2)


@pytest.mark.parametrize("alone", [True, False])
def test_a_dataset_gives_an_autoencoder_its_x_whether_or_not_there_is_a_y(alone):
    data = from_dataset(Pictures(alone), task=Autoencoding())
    assert rows_of(data).target.shape[1] == 72 and data.class_names is None
    held = from_loader(DataLoader(Pictures(alone), 7), task=Autoencoding())
    assert held.sizes == data.sizes
    loaders = [DataLoader(Pictures(alone), size) for size in (7, 7, 9)]
    streamed = from_loader(*loaders[:2], val=loaders[2], stream=True, task=Autoencoding())
    assert isinstance(streamed, LoaderData)
    assert streamed.task == Autoencoding(72, peak=255.0, center=(0.0,), scale=(255.0,))
    (batch,) = streamed.batches("test", 100)
    assert torch.equal(batch.target, batch.x.flatten(1)) and batch.x.max() <= 1
    raw = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).flatten(1).float()
    torch.testing.assert_close(streamed.task.decode(batch.target), raw)


@pytest.mark.parametrize(("task", "y"), [(Regression(), VALUES), (Regression(), VALUES[:, 1]), (MultiLabel(), TAGS)])
def test_a_stream_has_the_task_and_the_targets_of_data_held_whole(task, y):
    parts = [TensorDataset(torch.from_numpy(x), torch.from_numpy(t)) for x, t in split_of(X, y)]
    loaders = [DataLoader(part, 7) for part in parts]
    streamed = from_loader(loaders[0], loaders[2], val=loaders[1], stream=True, task=task)
    held = from_loader(loaders[0], loaders[2], val=loaders[1], task=task, normalize="none")
    assert isinstance(streamed, LoaderData) and isinstance(held, ArrayData)
    assert streamed.task.outputs == held.task.outputs
    for split in ("train", "val", "test"):
        one, other = rows_of(streamed, split), rows_of(held, split)
        torch.testing.assert_close(one.target, other.target, rtol=1e-5, atol=1e-5)
        assert torch.equal(one.x, other.x)
    assert (
        streamed.fingerprint()
        != from_loader(loaders[0], loaders[2], val=loaders[1], stream=True, task=task, name="other").fingerprint()
    )


@pytest.mark.parametrize(
    ("task", "y", "message"),
    [
        (Regression(), np.ones(ROWS), "loader: y_train is 1 in every row"),
        (Regression(3), VALUES, "y_train has 2 values a row, and Regression has 3 outputs"),
        (MultiLabel(), TAGS * 2, "loader: y_train of batch 0 holds 2 in row .*; zeros and ones"),
        (MultiLabel(), np.arange(ROWS) < 35, "loader: y_train is 1 in every row, so there is nothing to learn"),
    ],
)
def test_a_stream_refuses_what_is_refused_of_data_held_whole(task, y, message):
    loaders = [DataLoader(TensorDataset(*map(torch.from_numpy, part)), 7) for part in split_of(X, y)]
    with pytest.raises(UserError, match=message):
        from_loader(loaders[0], loaders[2], val=loaders[1], stream=True, task=task)


def test_a_task_of_ones_own_with_classes_has_labels():
    class Smoothed(Classification):
        """Its own loss."""

    data = from_arrays(X, np.arange(ROWS) % 3 + 1, task=Smoothed(3))
    loaders = [DataLoader(TensorDataset(torch.from_numpy(X), torch.arange(ROWS) % 3), 7)] * 3
    assert from_loader(*loaders[:2], val=loaders[2], stream=True, task=Smoothed(3)).task == Smoothed(3)
    with pytest.raises(UserError, match=r"3 classes of labels, and .* has 4"):
        from_arrays(X, np.arange(ROWS) % 3, task=Smoothed(4))
    assert data.task == Smoothed(3) and data.classes == 3


WORDS = np.array(["ill", "well"])[np.arange(ROWS) % 2]


@pytest.mark.parametrize(
    ("x", "y", "task", "message"),
    [
        (X, WORDS, Regression(), r"y_train is <U4 .* are needed for Regression; words are the labels of classes"),
        (X, WORDS, MultiLabel(), "words are the labels of classes"),
        (X, VALUES, Regression(3), "y_train has 2 values a row, and Regression has 3 outputs"),
        (X, TAGS, MultiLabel(5), "y_train has 4 values a row, and MultiLabel has 5 outputs"),
        (X, None, Autoencoding(4), "a row has 5 values, and Autoencoding has 4 outputs"),
        (X, np.where(YES, np.nan, 1), Regression(), "y_train holds values that are NaN or .*, the first in row 0"),
        (X, np.full(ROWS, 7), Regression(), "y_train is 7 in every row, so there is nothing to learn"),
        (X, np.arange(ROWS) % 3, MultiLabel(), "y_train holds 2 in row 2; zeros and ones are expected"),
        (X, np.zeros(ROWS), MultiLabel(), "y_train is 0 in every row, so there is nothing to learn"),
        (X, VALUES[:50, 0], Regression(), "x_train has 60 rows and y_train has 50 targets"),
        (X * 0 + 3, None, Autoencoding(), "x_train is the same in every row"),
        (X, None, Autoencoding(criterion="bce"), "criterion=bce is of values from 0 to 1; use normalize=unit"),
        (X, YES, Autoencoding(), "y_train is given, but Autoencoding's target is x; leave it out"),
        (X, None, None, r"x_train is given without y_train; task=Autoencoding\(\) has x for its target"),
        (X, np.arange(ROWS) / 2, None, "holds 0.5; labels must be integers, .* values need a task, regression"),
        (X, np.arange(ROWS) * 3, None, "none is 1; they must be 0 to classes - 1, and values need a task, regression"),
        (X, YES, Regression, "task must be a localearn.tasks.Task"),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_are_told_in_a_line_or_two(x, y, task, message):
    with pytest.raises(UserError, match=message) as told:
        from_arrays(x, y, task=task)
    assert str(told.value).count("\n") < 3


def test_counts_may_be_a_regression():
    assert from_arrays(X, np.arange(ROWS) % 5, task=Regression()).task.outputs == 1


def test_a_validation_part_of_one_class_is_told_for_its_auc_is_not_defined():
    with pytest.raises(UserError, match="y_val is 1 in every row, so there is nothing to learn"):
        from_arrays(X, YES, task=MultiLabel(), x_val=X[:5], y_val=np.ones(5))


@pytest.fixture
def archive(tmp_path):
    """Write an npz archive of these arrays; return its path."""

    def written(**arrays):
        np.savez(tmp_path / "mine.npz", **arrays)
        return tmp_path / "mine.npz"

    return written


@pytest.mark.parametrize(
    ("task", "y", "kind", "outputs"),
    [
        ("regression", VALUES, Regression, 2),
        ("multilabel", TAGS, MultiLabel, 4),
        ("binary", YES, MultiLabel, 1),
        (MultiLabel(k=2), TAGS, MultiLabel, 4),
        ("autoencoding", None, Autoencoding, 5),
    ],
)
def test_an_archive_has_the_tasks_that_fit_and_is_from_arrays_data(archive, task, y, kind, outputs):
    path = archive(x=X) if y is None else archive(x=X, y=y)
    data = load("npz", path=path, task=task)
    assert isinstance(data.task, kind) and data.task.outputs == outputs
    own = from_arrays(X, y, task=kind(k=2) if isinstance(task, MultiLabel) else kind())
    assert data.fingerprint() == own.fingerprint()


def test_an_archive_of_sequences(archive):
    data = load("npz", path=archive(x=IMAGES[..., 0], y=YES), layout="ntd")
    assert (data.kind, data.input_shape) == ("sequence", (4, 6))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": X, "y": np.full(ROWS, 7.0)}, {"task": "regression"}, "mine.npz: y_train is 7 in every row"),
        ({"x": X, "y": WORDS}, {"task": "regression"}, "mine.npz: y_train is <U4"),
        ({"x": X, "y": TAGS}, {"task": "binary"}, "mine.npz: y_train has 4 columns, .*; use task=multilabel"),
        ({"x": X, "y": VALUES[:, 0]}, {}, "mine.npz: y_train is float64 and holds .* values need a task, regression"),
        ({"x": X}, {}, "mine.npz lacks x_train, y_train"),
        ({"x": X}, {"task": "autoencoding", "criterion": "huber"}, "criterion=huber is none of task=autoencoding"),
        ({"x": X}, {"task": "autoencoding", "criterion": "bce"}, "mine.npz: x_train runs from .*use normalize=unit"),
        ({"x": X, "y": TAGS}, {"task": "multilabel", "criterion": "bce"}, "its loss is a cross-entropy"),
        ({"x": X, "y": TAGS}, {"task": "multi"}, "unknown task 'multi'"),
    ],
)  # fmt: skip
def test_an_archive_that_does_not_fit_its_task_is_told_by_its_path(archive, arrays, options, message):
    with pytest.raises(UserError, match=message) as told:
        load("npz", path=archive(**arrays), **options)
    assert str(told.value).count("\n") < 3


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("digits", "regression", "task=regression does not fit digits, which has labels; autoencoding does"),
        ("digits", MultiLabel(), "task=MultiLabel does not fit digits"),
        ("diabetes", "classification", "task=classification does not fit diabetes, which has values"),
        ("karate", "autoencoding", "task=autoencoding does not fit karate, which has labels"),
    ],
)
def test_a_set_that_comes_with_its_targets_refuses_another_task(name, task, message):
    with pytest.raises(UserError, match=message):
        load(name, task=task)


def test_an_autoencoder_of_a_set_has_the_rows_that_its_classes_have():
    labelled, whole = load("digits"), load("digits", task="autoencoding")
    for split in ("train", "val", "test"):
        assert torch.equal(rows_of(labelled, split).x, rows_of(whole, split).x)
    assert isinstance(whole.task, Autoencoding) and whole.task.peak == 16
    assert labelled.fingerprint() != whole.fingerprint()
    assert load("diabetes", task="autoencoding").task.outputs == 10


def test_an_image_folder_is_autoencoded(tmp_path):
    from PIL import Image

    for number in range(20):
        folder = tmp_path / "images" / ("a" if number % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number]).save(folder / f"{number}.png")
    data = load("imagefolder", path=tmp_path / "images", task="autoencoding")
    assert data.task == load("imagefolder", path=tmp_path / "images", task=Autoencoding()).task
    assert isinstance(data.task, Autoencoding) and (data.task.outputs, data.task.peak) == (72, 255)
