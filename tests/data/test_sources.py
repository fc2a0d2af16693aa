import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from localearn.data import NAMES, load
from localearn.data.partition import hold_out
from localearn.errors import UserError


def archive(tmp_path, **changes):
    """An archive of 60 training and 20 test images, (7, 5), of three classes, each with its row number in a corner."""
    random = np.random.RandomState(0)
    arrays = {}
    for part, rows in (("train", 60), ("test", 20)):
        x = random.randint(256, size=(rows, 7, 5)).astype(np.uint8)
        x[:, 0, 0] = np.arange(rows)
        arrays |= {f"x_{part}": x, f"y_{part}": np.arange(rows) % 3}
    path = tmp_path / "own.npz"
    np.savez(path, **{**arrays, **changes})
    return path, {**arrays, **changes}


def rows_of(data, split):
    """The row numbers that the corners of a split's raw images tell."""
    return [int(row) for batch in data.batches(split, 7) for row in batch.x[:, 0, 0, 0]]


def whole(data, split="train"):
    (batch,) = data.batches(split, 10_000)
    return batch


def test_the_splits_are_disjoint_complete_and_stratified(tmp_path):
    path, arrays = archive(tmp_path)
    data = load("npz", path=path, normalize="none", val_fraction=0.2)
    assert data.sizes == {"train": 48, "val": 12, "test": 20}
    assert sorted(rows_of(data, "train") + rows_of(data, "val")) == list(range(60))
    assert rows_of(data, "test") == list(range(20))
    for split, part in (("train", "train"), ("val", "train"), ("test", "test")):
        batch, rows = whole(data, split), rows_of(data, split)
        assert torch.equal(batch.x[:, 0], torch.from_numpy(arrays[f"x_{part}"][rows]).float())
        assert batch.y.tolist() == arrays[f"y_{part}"][rows].tolist()
    assert whole(data, "val").y.bincount().tolist() == [4, 4, 4]


def test_the_validation_split_hangs_on_split_seed_alone(tmp_path):
    path, _ = archive(tmp_path)
    first = rows_of(load("npz", path=path, normalize="none"), "val")
    torch.manual_seed(1)
    np.random.seed(1)
    assert rows_of(load("npz", path=path, normalize="none", augment="crop"), "val") == first
    other = load("npz", path=path, normalize="none", split_seed=1)
    assert rows_of(other, "val") != first
    assert rows_of(other, "test") == list(range(20))


def test_a_val_size_goes_before_the_fraction(tmp_path):
    path, _ = archive(tmp_path)
    assert load("npz", path=path, val_fraction=0.5, val_size=7).sizes["val"] == 7


def test_a_train_size_takes_a_part_of_the_training_split_alone(tmp_path):
    path, _ = archive(tmp_path)
    full = load("npz", path=path, normalize="none", val_size=6)
    part = load("npz", path=path, normalize="none", val_size=6, train_size=9)
    assert part.sizes == {"train": 9, "val": 6, "test": 20}
    assert set(rows_of(part, "train")) < set(rows_of(full, "train"))
    assert rows_of(part, "val") == rows_of(full, "val")
    assert whole(part).y.bincount().tolist() == [3, 3, 3]
    assert rows_of(load("npz", path=path, normalize="none", val_size=6, train_size=9), "train") == rows_of(
        part, "train"
    )


@pytest.mark.parametrize("normalize", ["standard", "unit"])
@pytest.mark.parametrize("floats", [False, True])
def test_neither_test_nor_validation_influences_normalisation(tmp_path, normalize, floats):
    _, arrays = archive(tmp_path)
    _, val = hold_out(arrays["y_train"], 6, 0)
    x_train, x_test = arrays["x_train"].astype(np.float32 if floats else np.uint8), arrays["x_test"].copy()
    before_path, _ = archive(tmp_path, x_train=x_train, x_test=x_test.astype(x_train.dtype))
    before = whole(load("npz", path=before_path, normalize=normalize)).x
    x_train[val] = 255
    x_test[:] = 0
    after_path, _ = archive(tmp_path, x_train=x_train, x_test=x_test.astype(x_train.dtype))
    assert torch.equal(whole(load("npz", path=after_path, normalize=normalize)).x, before)


def test_unit_divides_by_the_levels_that_the_format_allows(tmp_path):
    path, _ = archive(tmp_path)
    raw, unit = load("npz", path=path, normalize="none"), load("npz", path=path, normalize="unit")
    torch.testing.assert_close(whole(unit).x, whole(raw).x / 255)
    digits = whole(load("digits", normalize="unit")).x
    assert digits.min() == 0 and digits.max() == 1


def test_vectors_are_standardised_by_feature(tmp_path):
    x = np.random.RandomState(0).randn(60, 4) * [1, 10, 100, 0] + [0, 5, -50, 3]
    path, _ = archive(tmp_path, x_train=x, x_test=x[:20])
    data = load("npz", path=path)
    assert (data.kind, data.input_shape) == ("vector", (4,))
    train = whole(data).x
    torch.testing.assert_close(train.std(0, correction=0), torch.tensor([1.0, 1, 1, 0]))
    torch.testing.assert_close(train.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="npz holds vectors: augment=crop needs images"):
        load("npz", path=path, augment="crop")


def test_colour_images_come_channels_first(tmp_path):
    x = np.random.RandomState(0).randint(256, size=(60, 7, 5, 3)).astype(np.uint8)
    path, _ = archive(tmp_path, x_train=x, x_test=x[:20])
    batch = whole(load("npz", path=path, normalize="none"), "test")
    assert batch.x.is_contiguous()
    assert torch.equal(batch.x, torch.from_numpy(x[:20].transpose(0, 3, 1, 2)).float())


def test_the_default_set_is_ready_without_files_or_network(tmp_path):
    data = load("digits", data_dir=tmp_path / "none")
    assert (data.classes, data.input_shape) == (10, (1, 8, 8))
    assert data.sizes == {"train": 1294, "val": 144, "test": 359}
    assert not (tmp_path / "none").exists()


def test_the_karate_club_is_ready_without_files_or_network(tmp_path):
    data = load("karate", data_dir=tmp_path / "none")
    assert (data.kind, data.classes, data.sizes) == ("graph", 4, {"train": 16, "val": 8, "test": 10})
    assert not (tmp_path / "none").exists()


def test_the_fingerprint_follows_split_and_normalisation_and_pixels(tmp_path):
    path, arrays = archive(tmp_path)
    prints = [
        load("npz", path=path).fingerprint(),
        load("npz", path=path, split_seed=1).fingerprint(),
        load("npz", path=path, normalize="unit").fingerprint(),
        load("npz", path=path, train_size=30).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert load("npz", path=path).fingerprint() == prints[0]
    x = arrays["x_test"].copy()
    x[-1, -1, -1] ^= 1
    changed, _ = archive(tmp_path, x_test=x)
    assert load("npz", path=changed).fingerprint() not in prints


def test_data_dir_is_the_argument_else_the_environment_else_the_cache(tmp_path, monkeypatch):
    for place in ("argument", "environment", "home/.cache/localearn"):
        (tmp_path / place).mkdir(parents=True)
    _, arrays = archive(tmp_path)
    for rows, place in ((5, "argument"), (6, "environment"), (7, "home/.cache/localearn")):
        test = {"x_test": arrays["x_test"][:rows], "y_test": arrays["y_test"][:rows]}
        np.savez(tmp_path / place / "mnist.npz", **{**arrays, **test})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCALEARN_DATA", str(tmp_path / "environment"))
    assert load("mnist", data_dir=tmp_path / "argument").sizes["test"] == 5
    assert load("mnist", data_dir=str(tmp_path / "argument")).sizes["test"] == 5
    assert load("mnist").sizes["test"] == 6
    monkeypatch.delenv("LOCALEARN_DATA")
    assert load("mnist").sizes["test"] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mnsit"}, r"unknown data set 'mnsit'; did you mean 'mnist'\? \(known: digits, mnist"),
        ({"name": "imagenet22k-xyz"}, r"unknown data set 'imagenet22k-xyz'.*\(known: digits"),
        ({"normalize": "standart"}, r"unknown normalize 'standart'; did you mean 'standard'\?"),
        ({"augment": "flip_crop"}, r"unknown augment 'flip_crop'.* \(known: none, crop, crop_flip\)"),
        ({"normalize": "rows"}, "normalize=rows belongs to graphs; for digits there are standard, unit and none"),
        ({"val_fraction": 0.0}, r"val_fraction is 0.0; it must lie between 0 and 1, both excluded"),
        ({"val_fraction": 1.0, "val_size": 5}, r"val_fraction is 1.0"),
        ({"test_fraction": -1.0}, r"test_fraction is -1.0; it must lie between 0 and 1"),
        ({"val_fraction": 1e-5}, r"val_fraction=1e-05 holds out 0 of 1438 training rows; between 1 and 1437"),
        ({"val_size": 1438}, r"val_size=1438 holds out 1438 of 1438 training rows; between 1 and 1437"),
        ({"val_size": 0}, r"val_size=0 holds out 0"),
        ({"train_size": 0}, r"train_size is 0; it must lie between 1 and 1294"),
        ({"train_size": 1295}, r"train_size is 1295; it must lie between 1 and 1294"),
        ({"split_seed": -1}, r"split_seed is -1; it must lie between 0 and 4294967295"),
        ({"split_seed": 2**32}, r"split_seed is 4294967296"),
        ({"layout": "nchw"}, r"layout belongs to npz, whose images may come either way, not to digits"),
        ({"layout": "chw"}, r"unknown layout 'chw'; did you mean 'nchw'"),
        ({"path": "x.npz"}, r"path belongs to npz, imagefolder and graph, not digits"),
        ({"image_size": 8}, r"image_size belongs to imagefolder; digits has its own size"),
        ({"name": "imagefolder", "path": ".", "image_size": 0}, r"image_size is 0; it must be at least 1"),
        ({"name": "npz"}, r"npz needs a path"),
        ({"name": "imagefolder"}, r"imagefolder needs a path"),
        ({"name": "graph"}, r"graph needs a path"),
        ({"name": "karate", "augment": "crop"}, r"karate is one graph with a fixed split: augment, val_size"),
        ({"name": "karate", "val_size": 3}, r"karate is one graph with a fixed split"),
        ({"name": "karate", "train_size": 3}, r"karate is one graph with a fixed split"),
    ],
)
def test_an_option_that_cannot_be_met_is_named_in_a_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        load(**{"name": "digits", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.arange(59) % 3}, r"own\.npz: x_train has 60 rows and y_train has 59 labels"),
        ({"x_test": np.full((20, 7, 5), np.nan)}, r"own\.npz: x_test holds 700 of 700 values that are NaN"),
        ({"y_test": np.array(["a"] * 20, dtype=object)}, r"own\.npz holds arrays of Python objects"),
    ],
)
def test_a_users_own_archive_is_checked_and_named(tmp_path, changes, message):
    path, _ = archive(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load("npz", path=path)


def test_a_users_own_graph_is_taken_with_lists_masks_or_no_splits(tmp_path):
    path, ring = tmp_path / "ring.npz", np.arange(20)
    graph = {"x": np.eye(20), "edge_index": np.stack([ring, np.roll(ring, 1)]), "y": np.array(["a", "b"] * 10)}
    np.savez(path, **graph, train=ring[:8], val=ring[8:12], test=ring[12:])
    listed = load("graph", path=path, normalize="none")
    assert (listed.kind, listed.class_names) == ("graph", ("a", "b"))
    assert listed.sizes == {"train": 8, "val": 4, "test": 8}
    np.savez(path, **graph, train_mask=ring < 8, val_mask=(ring >= 8) & (ring < 12), test_mask=ring >= 12)
    assert load("graph", path=path, normalize="none").fingerprint() == listed.fingerprint()
    np.savez(path, **graph)
    drawn = load("graph", path=path, test_fraction=0.3, val_fraction=0.5)
    assert drawn.sizes == {"train": 7, "val": 7, "test": 6} and len(drawn.notes) == 2
    np.savez(path, **graph, test=np.array([20]))
    with pytest.raises(UserError, match=r"ring\.npz: test holds 20 to 20; nodes run from 0 to 19"):
        load("graph", path=path)
    np.savez(path, **{**graph, "x": np.full((20, 2), np.nan)})
    with pytest.raises(UserError, match=r"ring\.npz: x holds 40 of 40 values that are NaN"):
        load("graph", path=path)
    with pytest.raises(UserError, match="normalize=unit belongs to images and vectors; for graph"):
        load("graph", path=path, normalize="unit")


@pytest.mark.parametrize("names", [("x_train", "y_train"), ("x", "y")])
def test_an_archive_without_a_test_part_has_one_drawn(tmp_path, names):
    path, arrays = archive(tmp_path)
    np.savez(path, **{names[0]: arrays["x_train"], names[1]: arrays["y_train"]})
    data = load("npz", path=path, normalize="none", test_fraction=0.25)
    assert data.sizes == {"train": 41, "val": 4, "test": 15}
    assert data.notes == ("no test part was given: 15 of 60 rows were drawn (test_fraction=0.25)",)
    assert sorted(row for split in data.sizes for row in rows_of(data, split)) == list(range(60))
    assert whole(data, "test").y.bincount().tolist() == [5, 5, 5]
    other = load("npz", path=path, normalize="none", test_fraction=0.25, split_seed=3)
    assert rows_of(other, "test") == rows_of(data, "test") and rows_of(other, "val") != rows_of(data, "val")


def test_an_archive_with_a_validation_part_has_none_drawn(tmp_path):
    _, arrays = archive(tmp_path)
    path, _ = archive(tmp_path, x_val=arrays["x_test"][:6], y_val=arrays["y_test"][:6])
    data = load("npz", path=path, normalize="none")
    assert data.sizes == {"train": 60, "val": 6, "test": 20}
    assert rows_of(data, "val") == list(range(6))


def test_an_archive_that_lacks_arrays_is_named(tmp_path):
    path, arrays = archive(tmp_path)
    np.savez(path, x_train=arrays["x_train"], y_train=arrays["y_train"], x_test=arrays["x_test"])
    with pytest.raises(UserError, match=r"own\.npz lacks y_test; it holds x_test, x_train, y_train"):
        load("npz", path=path)
    np.savez(path, images=arrays["x_train"])
    with pytest.raises(UserError, match=r"own\.npz lacks x_train, y_train; it holds images"):
        load("npz", path=path)
    np.savez(path, x=arrays["x_train"], y=arrays["y_train"], edge_index=np.zeros((2, 0)))
    with pytest.raises(UserError, match="holds edge_index, a graph"):
        load("npz", path=path)
    with pytest.raises(UserError, match="is not a file"):
        load("npz", path=tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load("npz", path=tmp_path / "no.npz")


def test_an_archives_labels_may_be_words_whose_names_are_kept(tmp_path):
    _, arrays = archive(tmp_path)
    words = {part: np.array(["ash", "oak", "yew"])[arrays[part]] for part in ("y_train", "y_test")}
    path, _ = archive(tmp_path, **words)
    data = load("npz", path=path)
    assert data.class_names == data.to("cpu").class_names == data.part(0, 1).class_names == ("ash", "oak", "yew")
    numbers = load("npz", path=archive(tmp_path)[0])
    assert numbers.class_names is None and data.fingerprint() == numbers.fingerprint()


def test_channels_may_come_first(tmp_path):
    x = np.random.RandomState(0).randint(256, size=(60, 7, 5, 3)).astype(np.uint8)
    last = load("npz", path=archive(tmp_path, x_train=x, x_test=x[:20])[0])
    x = x.transpose(0, 3, 1, 2)
    path, _ = archive(tmp_path, x_train=x, x_test=x[:20])
    assert load("npz", path=path, layout="nchw").fingerprint() == last.fingerprint()
    with pytest.raises(UserError, match="or give layout=nchw"):
        load("npz", path=path)


def test_importing_it_and_loading_the_default_import_nothing_heavy():
    script = (
        "import sys, localearn.data; localearn.data.load('digits');"
        "heavy = {'torchvision', 'torch_geometric', 'sklearn', 'scipy', 'PIL'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_house_is_known():
    images = {"digits", "mnist", "fashion_mnist", "kmnist", "svhn", "cifar10", "cifar100", "stl10", "imagenette"}
    graphs = {"karate", "cora", "citeseer", "pubmed", "graph", "cora_ml", "amazon_photo", "amazon_computers", "github"}
    graphs |= {"citeseer_full", "pubmed_full", "links"}
    tables = {"diabetes", "breast_cancer", "wine", "table", "interactions"}
    made_up = {"adding", "copy_memory", "views"}
    assert set(NAMES) == images | graphs | tables | made_up | {
        "npz",
        "imagefolder",
        "coordinates",
        "photo",
        "text",
        "views",
    }


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_rows_in_two_parts_are_told_by_the_first_rank_alone(rank, lines, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("RANK", rank)
    x = np.random.default_rng(0).random((40, 6))
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.arange(40) % 2, x_test=x[:10], y_test=np.arange(10) % 2)
    data = load("npz", path=tmp_path / "a.npz")
    assert any("10 of 10 test rows" in note for note in data.notes)
    assert len([record for record in caplog.records if "test rows" in record.getMessage()]) == lines


def rows_and_labels(data, split):
    batches = list(data.batches(split, 500))
    return torch.cat([batch.x for batch in batches]), torch.cat([batch.target for batch in batches])


def test_classes_that_are_left_out_are_in_the_test_part_alone(tmp_path):
    whole, part = load("digits", normalize="none"), load("digits", normalize="none", leave_out=[3, "7"])
    assert part.unseen == (3, 7) and whole.unseen == () and part.to("cpu").unseen == (3, 7)
    assert (part.classes, part.sizes["test"]) == (10, whole.sizes["test"])
    for split in ("train", "val"):
        (rows, labels), (own, own_labels) = (rows_and_labels(data, split) for data in (whole, part))
        kept = (labels != 3) & (labels != 7)
        assert torch.equal(own_labels, labels[kept]) and torch.equal(own, rows[kept]) and len(own) < len(rows)
    assert part.notes == ("no row of class 3, class 7 is in the training or validation part, which the test part has",)
    others = (load("digits", normalize="none", leave_out=left_out) for left_out in ([3], []))
    assert [data.fingerprint() for data in others][1] == whole.fingerprint() != part.fingerprint()
    few = load("digits", leave_out=[3, 7], train_size=80)
    assert few.sizes["train"] == 80 and len(rows_and_labels(few, "train")[1].unique()) == 8


def test_classes_are_left_out_by_name_too_and_of_a_validation_part_that_is_given(tmp_path):
    named: dict[str, Any] = {
        f"x_{part}": np.arange(24.0).reshape(12, 2) + k for k, part in enumerate(("train", "val", "test"))
    }
    named |= {f"y_{part}": np.array(["cat", "dog", "eel"] * 4) for part in ("train", "val", "test")}
    np.savez(tmp_path / "named.npz", **named)
    data = load("npz", path=tmp_path / "named.npz", leave_out=["dog"])
    assert data.unseen == (1,) and data.sizes == {"train": 8, "val": 8, "test": 12}
    assert any("class 1 (dog)" in note for note in data.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "digits", "leave_out": [10]}, r"leave_out has 10, which is none of its classes \(0 to 9\)"),
        ({"name": "digits", "leave_out": list(range(9))}, r"leave_out leaves 1 of 10 classes; two are needed"),
        ({"name": "karate", "leave_out": [0]}, r"leave_out is of rows that have one class each; karate is one graph"),
        ({"name": "diabetes", "leave_out": [0]}, r"leave_out is of rows .*; diabetes is for Regression here"),
    ],
)
def test_a_class_that_cannot_be_left_out_is_told(options, message):
    with pytest.raises(UserError, match=message):
        load(**options)
