import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import localearn
from localearn.data import ArrayData, GraphData, as_data, from_arrays, from_dataset, from_graph, from_loader, load
from localearn.errors import UserError

RANDOM = np.random.RandomState(0)
X = RANDOM.randint(256, size=(60, 7, 5, 3)).astype(np.uint8)
Y = np.arange(60) % 3
HELD = RANDOM.randint(256, size=(20, 7, 5, 3)).astype(np.uint8)


class Pairs(Dataset):
    """Items of any kind, as users' own datasets give them."""

    classes = ("ash", "oak", "yew")

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(torch.from_numpy(X.transpose(0, 3, 1, 2)), Y.tolist(), strict=True))


def test_arrays_give_what_the_same_arrays_in_an_archive_give(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, x_train=X, y_train=Y, x_test=HELD, y_test=Y[:20])
    for options in ({}, {"normalize": "unit", "val_fraction": 0.3, "augment": "crop"}):
        read = load("npz", path=path, split_seed=4, **options)
        given = from_arrays(X, Y, HELD, Y[:20], seed=4, **options)
        assert given.fingerprint() == read.fingerprint() and given.sizes == read.sizes
    np.savez(path, x=X, y=Y)
    read = load("npz", path=path)
    assert from_arrays(X, Y).fingerprint() == read.fingerprint()
    assert from_arrays(X, Y).notes == read.notes


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y: (x, y),
        lambda x, y: [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y)],
        lambda x, y: TensorDataset(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y)),
        lambda x, y: Pairs([(x[i], int(y[i])) for i in range(len(x))]),
        lambda x, y: Pairs([(torch.from_numpy(x[i].transpose(2, 0, 1)), torch.tensor(y[i])) for i in range(len(x))]),
        lambda x, y: Stream(),
        lambda x, y: DataLoader(Stream(), batch_size=7),
    ],
)
def test_all_that_holds_the_same_rows_gives_the_same_data(make):
    data = as_data(make(X, Y))
    assert isinstance(data, ArrayData) and data.input_shape == (3, 7, 5)
    assert data.fingerprint() == from_arrays(X, Y).fingerprint()
    assert as_data(data) is data


def test_parts_are_named_and_names_kept():
    x = torch.from_numpy(X.transpose(0, 3, 1, 2).copy())
    part = Pairs([(x[i], int(Y[i])) for i in range(60)])
    data = from_dataset(part, Pairs(part.items[:20]), val=Pairs(part.items[:10]), normalize="none")
    assert (data.name, data.class_names) == ("pairs", ("ash", "oak", "yew"))
    assert data.sizes == {"train": 60, "val": 10, "test": 20}
    loaders = [DataLoader(Pairs(part.items[:n]), batch_size=8) for n in (60, 20, 10)]
    again = from_loader(loaders[0], loaders[1], val=loaders[2], normalize="none", name="mine")
    assert (again.name, again.fingerprint()) == ("mine", data.fingerprint())


def test_the_users_arrays_are_neither_changed_nor_shared():
    x, held = X.copy(), HELD.copy()
    data = from_arrays(x, Y, held, Y[:20], x_val=held, y_val=Y[:20], normalize="none")
    x[:], held[:] = 0, 0
    assert all(batch.x.any() for split in data.sizes for batch in data.batches(split, 100))
    x.setflags(write=False)
    assert from_arrays(x[::-1], Y).sizes["test"] == 12


def test_lists_half_floats_and_words_are_taken():
    data = from_arrays([[0.0, 1.0], [2.0, 3.0]] * 10, ["no", "yes"] * 10, class_names=["yes", "no"])
    assert (data.kind, data.classes, data.class_names) == ("vector", 2, ("yes", "no"))
    half = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    (batch,) = from_arrays(half, torch.arange(20) % 2).batches("test", 10)
    assert batch.x.dtype == torch.float32 and not batch.x.requires_grad


def test_test_rows_that_are_trained_on_are_counted_and_told(caplog):
    held = np.concatenate([X[:3], X[:1], HELD[:4]])
    data = from_arrays(X, Y, held, Y[:8])
    assert data.notes == ("4 of 8 test rows are also among the other rows",)
    assert [record.getMessage() for record in caplog.records] == [f"arrays: {data.notes[0]}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X, Y[:59]), r"arrays: x_train has 60 rows and y_train has 59 labels"),
        ((X, Y, HELD), r"arrays: x_test is given without y_test"),
        ((X, Y, np.full(HELD.shape, np.nan), Y[:20]), r"x_test holds 2100 of 2100 values that are NaN"),
        ((X, np.where(Y == 1, -100, Y)), r"y_train holds -100; labels run from 0"),
        ((X, Y + 0.5), r"y_train is float64 and holds 0\.5"),
        ((X, Y, HELD, Y[:20] + 1), r"a held-out label is 3; the training labels end at 2"),
        ((X.astype(complex), Y), r"x_train is complex128; integers or real"),
        ((X, None), r"arrays: x_train is given without y_train"),
        (([[1.0], [2.0, 3.0]], [0, 1]), r"x_train is list, of which no array can be made"),
        ((torch.eye(4).to_sparse(), [0, 1, 0, 1]), r"x_train is a sparse tensor; give value\.to_dense"),
        ((np.ma.masked_less(X, 9), Y), r"x_train has masked values"),
        ((torch.from_numpy(X), Y), r"looks like \(N, H, W, C\); \(N, C, H, W\) is expected, or give layout=nhwc"),
        ((X[:2], Y[:2]), r"test_fraction=0\.2 holds out 0 of 2"),
    ],
)
def test_arrays_that_cannot_be_learned_from_are_named_in_the_archives_words(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        from_arrays(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, r"learns from a localearn.Data, say load\('digits'\), \(x, y\), .*, not from ndarray"),
        ("mnist", r"not from str"),
        (None, r"not from NoneType"),
        ((X, Y, HELD), r"not from tuple"),
        (Pairs([]), r"pairs is empty"),
        (Pairs([X[0]]), r"pairs: item 0 is ndarray; a pair \(x, y\) is expected"),
        (Pairs([(X[0], 0, 1)]), r"item 0 is 3 values; a pair"),
        (Pairs([(X[0], 0), (X[0, 1:], 1)]), r"items of different shapes, \(6, 5, 3\), \(7, 5, 3\)"),
        (DataLoader(Pairs([]), batch_size=2), r"loader gives no batch"),
        (TensorDataset(torch.zeros(3)), r"tensordataset is 1 values; a pair"),
    ],
)
def test_what_is_no_data_is_named_in_a_line(data, message):
    with pytest.raises(UserError, match=message) as caught:
        as_data(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": "unti"}, r"unknown normalize 'unti'; did you mean 'unit'"),
        ({"layout": "hwc"}, r"unknown layout 'hwc'"),
        ({"seed": -1}, r"seed is -1"),
        ({"test_fraction": 1.5}, r"test_fraction is 1\.5"),
        ({"class_names": ["a"]}, r"there are 1 class_names and 3 classes"),
    ],
)
def test_an_option_that_cannot_be_met_is_named(options, message):
    with pytest.raises(UserError, match=message):
        from_arrays(X, Y, **options)


def graph(**changes):
    nodes = 20
    sound = {
        "x": torch.arange(3.0 * nodes).view(nodes, 3),
        "edge_index": torch.stack([torch.arange(nodes), torch.arange(nodes).roll(1)]),
        "y": torch.arange(nodes) % 2,
    }
    return SimpleNamespace(**{**sound, **changes})


def mask(*nodes):
    return torch.isin(torch.arange(20), torch.tensor(nodes))


def test_a_graph_is_taken_with_its_masks():
    data = as_data(graph(train_mask=mask(0, 1, 2), val_mask=mask(4, 5), test_mask=mask(7), edge_attr=torch.ones(20, 2)))
    assert isinstance(data, GraphData)
    assert (data.sizes, data.classes) == ({"train": 3, "val": 2, "test": 1}, 2)
    assert data.notes == ("edge_attr not used: all edges count alike",)
    (batch,) = data.batches("val", 1)
    assert batch.nodes is not None and batch.nodes.tolist() == [4, 5] and batch.y.tolist() == [0, 1]


def test_a_graph_without_masks_is_split_and_a_named_mask_kept():
    data = from_graph(graph(y=np.array(["ham", "spam"] * 10)), test_fraction=0.3, val_fraction=0.5, normalize="rows")
    assert data.sizes == {"train": 7, "val": 7, "test": 6}
    assert data.class_names == ("ham", "spam")
    assert data.notes == (
        "no test_mask was given: 6 of 20 nodes were drawn",
        "no val_mask was given: 7 of 14 nodes were drawn",
    )
    alone = from_graph(graph(train_mask=mask(0, 1, 2)), val_fraction=0.2)
    assert alone.sizes == {"train": 3, "val": 3, "test": 14}
    assert alone.notes[1] == "no test_mask was given: it is the other 14 nodes"
    assert from_graph(graph(train_mask=mask(0, 1), val_mask=mask(2, 3))).sizes == {"train": 2, "val": 2, "test": 16}
    assert from_graph(graph(train_mask=mask(0, 1, 2, 3), test_mask=mask(4)), val_fraction=0.5).sizes["train"] == 2
    kept = from_graph(graph(test_mask=mask(0, 1, 2, 3)))
    (batch,) = kept.batches("test", 1)
    assert kept.sizes == {"train": 14, "val": 2, "test": 4}
    assert batch.nodes is not None and batch.nodes.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, r"graph lacks x; a graph needs x, edge_index and y"),
        ({"x": torch.full((20, 3), torch.nan)}, r"graph: x holds 60 of 60 values that are NaN"),
        ({"edge_index": torch.tensor([[0], [20]])}, r"edge_index holds 0 to 20; nodes run from 0 to 19"),
        (
            {"train_mask": torch.ones(20, 10, dtype=torch.bool)},
            r"train_mask is bool with shape \(20, 10\); .*mask\[:, 0\]",
        ),
        ({"y": torch.arange(19) % 2}, r"x has 20 rows and y has 19 labels"),
        ({"train_mask": mask(0, 1), "val_mask": mask(1, 2), "test_mask": mask(3)}, r"a node is listed twice"),
    ],
)
def test_what_is_wrong_with_a_graph_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        from_graph(graph(**changes))
    with pytest.raises(UserError, match="normalize is rows or none"):
        from_graph(graph(), normalize="unit")


@pytest.mark.parametrize(
    "data",
    [
        (X[:, 0, :, 0].astype(float), np.array(["ash", "oak", "yew"])[Y]),
        TensorDataset(torch.from_numpy(X[:, 0, :, 0]), torch.from_numpy(Y)),
        DataLoader(TensorDataset(torch.from_numpy(X[:, 0, :, 0]), torch.from_numpy(Y)), batch_size=9),
    ],
)
def test_a_rule_is_trained_on_what_people_have(tmp_path, data):
    torch.manual_seed(0)
    net = localearn.MLP((5,), 3, widths=(8,))
    record = localearn.Backprop(net).fit(data, epochs=1, progress=False, energy=False, out=tmp_path / "run")
    assert (record.status, record.train_samples, record.test_samples) == ("completed", 43, 12)
    assert record.diagnostics["data"] == ["no test part was given: 12 of 60 rows were drawn (test_fraction=0.2)"]
    names = ["ash", "oak", "yew"] if isinstance(data, tuple) else None
    assert record.diagnostics.get("class_names") == names
    with safe_open(tmp_path / "run" / "net.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["localearn"]).get("class_names") == names
