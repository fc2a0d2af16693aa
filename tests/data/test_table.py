"""A csv table as data: which task it is, what the training split alone decides, what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch

import localearn
from localearn import cli
from localearn.data import load, table
from localearn.data.base import Split
from localearn.errors import UserError
from localearn.tasks import Classification, MultiLabel, Regression

SPLITS: tuple[Split, ...] = ("train", "val", "test")
ROWS = 60


def rows(seed=0, n=ROWS):
    """Sizes, rooms, towns and a price made of them."""
    random = np.random.RandomState(seed)
    size, rooms = random.uniform(30, 150, n).round(2), random.randint(1, 6, n)
    town = np.array(["Bonn", "Köln", "Ulm"])[random.randint(0, 3, n)]
    price = (1000 * size + 5000 * rooms + 100 * random.randn(n)).round()
    return {"size": size, "rooms": rooms, "town": town, "price": price}


@pytest.fixture
def write(tmp_path):
    def written(columns, name="x.csv"):
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return written


def whole(data, split):
    (batch,) = data.batches(split, 10_000)
    return batch


def test_numbers_are_standardised_and_words_one_hot_in_the_order_of_the_file(write):
    made = rows()
    data = table(write(made), "price")
    assert isinstance(data.task, Regression) and data.name == "table" and data.kind == "vector"
    assert data.feature_names == ("size", "rooms", "town=Bonn", "town=Köln", "town=Ulm")
    assert data.target_names == ("price",) and data.sizes == {"train": 43, "val": 5, "test": 12}
    x = torch.cat([whole(data, split).x for split in SPLITS])
    assert x.dtype == torch.float32 and torch.equal(x[:, 2:].sum(1), torch.ones(ROWS))
    prices = torch.cat([data.task.decode(whole(data, split).target) for split in SPLITS])[:, 0].sort().values
    torch.testing.assert_close(prices.double(), torch.from_numpy(np.sort(made["price"])), rtol=1e-5, atol=0.5)


@pytest.mark.parametrize("normalize", ["standard", "unit"])
def test_what_is_learned_of_the_columns_is_the_training_splits_alone(write, normalize):
    """Rows that are held out are made absurd: every training row and its statistics stay what they were."""
    made, options = rows(), {"target": "price", "normalize": normalize, "missing": "mean"}
    before = table(write(made), **options)
    train = whole(before, "train").x
    if normalize == "standard":
        torch.testing.assert_close(train[:, :2].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(train[:, :2].std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    else:
        assert train[:, :2].min(0).values.tolist() == [0, 0] and train[:, :2].max(0).values.tolist() == [1, 1]
    sizes = {size: row for row, size in enumerate(made["size"])}
    held = [row for row in range(ROWS) if row not in _training_rows(made, options, write)]
    assert len(sizes) == ROWS and len(held) == 17
    made["size"][held] *= 1000
    made["price"][held] += 12_345
    made["town"][held] = "Ulm"
    after = table(write(made), **options)
    assert torch.equal(whole(after, "train").x, train)
    assert torch.equal(whole(after, "train").target, whole(before, "train").target) and before.task == after.task


def _training_rows(made, options, write):
    """The rows of the training split, told by a column that numbers them and is not normalised."""
    numbered = table(write({**made, "row": np.arange(len(made["size"]))}), **{**options, "normalize": "none"})
    assert numbered.feature_names is not None
    return set(whole(numbered, "train").x[:, numbered.feature_names.index("row")].int().tolist())


def test_the_test_rows_are_the_same_for_every_seed_and_validation_rows_are_not(write):
    path = write(rows())
    one, other = (table(path, "price", split_seed=seed, normalize="none") for seed in (0, 1))
    assert torch.equal(whole(one, "test").x, whole(other, "test").x)
    assert not torch.equal(whole(one, "val").x, whole(other, "val").x)
    assert table(path, "price", val_size=9, train_size=20).sizes == {"train": 20, "val": 9, "test": 12}


def test_the_same_file_gives_the_same_data_from_python_and_from_the_command_line(write, door, read):
    path = write(rows())
    data = table(path, "price", categories="codes")
    assert load("table", path=path, target="price", categories="codes").fingerprint() == data.fingerprint()
    ended = door(
        "dataset=table", f"dataset.path={path}", "dataset.target=price", "dataset.categories=codes", "net=deepfm",
        "net.widths=[6]", "epochs=2", "progress=false", "energy.enabled=false", "out=run", "seed=4",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    record = read.record("run")
    assert record["data_fingerprint"] == data.fingerprint()
    assert ended.out.splitlines()[-1] == "predicted against true values of 12 test rows: run/predicted.png"
    torch.manual_seed(4)
    net = localearn.DeepFM(data.input_shape, 1, categories=data.categories, widths=(6,)).for_task(data.task)
    own = localearn.MonoForward(net).fit(data, epochs=2, seed=4, progress=False, energy=False)
    assert own.metrics == record["metrics"]
    assert localearn.load_net("run").takes == net.takes
    changed = rows()
    changed["size"][3] += 0.01
    assert table(write(changed), "price", categories="codes").fingerprint() != data.fingerprint()


@pytest.mark.parametrize(
    ("target", "options", "task", "told"),
    [
        ("price", {}, Regression, "target price: it holds numbers, so task=regression"),
        (
            "rooms",
            {},
            Classification,
            "target rooms: it holds 5 whole numbers, taken as classes, so task=classification",
        ),
        ("rooms", {"task": "regression"}, Regression, None),
        ("town", {}, Classification, "target town: it holds words, so task=classification"),
        ("flat", {"task": "binary"}, MultiLabel, "target flat: the output is the evidence for 'yes', against 'no'"),
        (["price", "size"], {}, Regression, "target price, size: they hold numbers, so task=regression"),
        (["a", "b"], {}, MultiLabel, "target a, b: they hold 0 and 1 alone, so task=multilabel"),
    ],
)
def test_the_task_is_that_of_the_target_and_is_told(write, target, options, task, told):
    made = rows()
    random = np.random.RandomState(1)
    made |= {"flat": np.array(["no", "yes"])[random.randint(0, 2, ROWS)]}
    made |= {name: random.randint(0, 2, ROWS) for name in "ab"}
    data = table(write(made), target, **options)
    assert type(data.task) is task
    assert told is None or told in data.notes
    if task is MultiLabel:
        assert set(whole(data, "train").target.unique().tolist()) == {0.0, 1.0}
        assert data.task.outputs == (1 if target == "flat" else 2)


def test_classes_keep_their_names_and_each_split_its_share(write):
    made = rows(n=300)
    data = table(write(made), "rooms")
    assert data.class_names == ("1", "2", "3", "4", "5") and data.classes == 5
    for split in SPLITS:
        shares = whole(data, split).target.bincount() / data.sizes[split]
        assert (shares - torch.from_numpy(np.bincount(made["rooms"])[1:] / 300)).abs().max() < 0.03


def test_codes_stand_first_and_what_no_training_row_has_is_the_last_one(write):
    made = rows()
    seen = _training_rows(made, {"target": "price"}, write)
    alone = next(row for row in range(ROWS) if row not in seen)
    made["town"] = made["town"].astype(object)
    made["town"][alone] = "Ulan Bator"
    data = table(write(made), "price", categories="codes", categorical=["rooms"])
    assert data.categories == (6, 4) == data.takes.categories and data.feature_names == ("rooms", "town", "size")
    held = torch.cat([whole(data, split).x for split in ("val", "test")])
    assert (held[:, 1] == 3).sum() == 1 and (whole(data, "train").x[:, 1] < 3).all()
    told = "column town: 1 of 17 held-out rows have a category that no training row has, which is "
    assert told + "code 3" in data.notes
    hot = table(write(made), "price")
    rows_of = torch.cat([whole(hot, split).x for split in ("val", "test")])[:, 2:]
    assert (rows_of.sum(1) == 0).sum() == 1 and told + "all zeros" in hot.notes


@pytest.mark.parametrize("missing", ["mean", "median", "most_frequent"])
def test_missing_values_are_filled_from_the_training_split_and_told(write, missing):
    made = rows()
    train = sorted(_training_rows(made, {"target": "price"}, write))
    texts = {**made, "rooms": made["rooms"].astype(object), "town": made["town"].astype(object)}
    texts["rooms"][train[0]] = texts["rooms"][train[5]] = ""
    texts["town"][train[1]] = "NA"
    data = table(write(texts), "price", missing=missing, normalize="none", indicator=True)
    present = [made["rooms"][row] for row in train if row not in (train[0], train[5])]
    counts = np.bincount(present)
    fill = {"mean": np.mean(present), "median": np.median(present), "most_frequent": counts.argmax()}[missing]
    x = whole(data, "train").x
    assert x[0, 1].item() == pytest.approx(fill, rel=1e-6)
    assert data.feature_names == (
        "size", "rooms", "rooms missing", "town=Bonn", "town=Köln", "town=Ulm", "town missing",
    )  # fmt: skip
    assert x[:, 2].nonzero().flatten().tolist() == [0, 5] and x[:, 6].nonzero().flatten().tolist() == [1]
    assert f"column rooms: 2 missing values are {fill:.6g}, the training split's {missing}" in data.notes
    assert any(note.startswith("column town: 1 missing values are '") for note in data.notes)


def test_figures_agree_with_scikit_learns(write):
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    made = rows(seed=5)
    raw, data = table(write(made), "price", normalize="none"), table(write(made), "price")
    numbers = StandardScaler().fit(whole(raw, "train").x[:, :2].double())
    towns = OneHotEncoder(sparse_output=False).fit(made["town"][:, None])
    for split in SPLITS:
        expected: Any = numbers.transform(whole(raw, split).x[:, :2].double())
        np.testing.assert_allclose(whole(data, split).x[:, :2], expected, atol=1e-5)
    hot = torch.cat([whole(data, split).x[:, 2:] for split in SPLITS]).numpy()
    assert sorted(map(tuple, hot)) == sorted(map(tuple, towns.transform(made["town"][:, None]).astype(np.float32)))


def test_a_table_with_a_column_of_row_numbers_says_so_and_one_without_variation_too(write):
    made = {"id": np.arange(ROWS), "same": np.full(ROWS, 4), **rows()}
    notes = table(write(made), "price").notes
    assert "column id numbers the rows; drop=[id] leaves it out" in notes
    assert "column same is 4 in all of the training split, so it says nothing" in notes
    data = table(write(made), "price", drop=["id", "same"])
    assert data.feature_names == table(write(made), "price", columns=["size", "rooms", "town"]).feature_names
    assert not torch.isnan(whole(table(write(made), "price"), "test").x).any()


FAULTS = {
    "no path": ({}, {"path": None}, "table needs a path"),
    "no target": ({}, {"target": None}, "target is missing; give target= with one of its columns: size, rooms, town"),
    "target not there": ({}, {"target": "prize"}, "no column 'prize', which target names; did you mean 'price'"),
    "column not there": ({}, {"columns": ["sise"]}, "no column 'sise', which columns names; did you mean 'size'"),
    "drop not there": ({}, {"drop": ["twon"]}, "no column 'twon', which drop names; did you mean 'town'"),
    "nothing left": ({}, {"drop": ["size", "rooms", "town"]}, "columns and drop leave no column to predict price from"),
    "constant target": ({"price": [3.5] * ROWS}, {}, "target 'price' is 3.5 in every row, so there is nothing to"),
    "constant word": ({"price": ["x"] * ROWS}, {}, "target 'price' is 'x' in every row"),
    "words to a regression": ({}, {"target": "town", "task": "regression"}, "line 2: .*'town' holds 'Bonn', a word"),
    "values as classes": ({}, {"target": "size", "task": "classification"}, "'size' holds .* give task=regression"),
    "numbers as classes": ({}, {"task": "classification"}, "'price' has 60 classes in 60 rows.*give task=regression"),
    "three are not two": ({}, {"target": "town", "task": "binary"}, "has 3 classes, Bonn, Köln, Ulm, and task=binary"),
    "two targets": ({}, {"target": ["town", "size"], "task": "classification"}, "task=classification has one target"),
    "no labels": ({}, {"task": "multilabel"}, "'price' holds .*, and labels of task=multilabel are 0 or 1"),
    "NaN target": ({"price": [*range(ROWS - 1), "NaN"]}, {}, "the target 'price' has no value in line 61; remove"),
    "infinite target": ({"price": [*range(ROWS - 1), "inf"]}, {}, "line 61: column 'price' holds inf"),
    "missing": ({"size": ["", *range(ROWS - 1)]}, {}, r"'size' has no value in 1 of 60 rows \(line 2\); give miss"),
    "all missing": ({"size": ["NA"] * ROWS}, {"missing": "mean"}, "'size' has no value in any row of the training"),
    "text": ({"size": [*range(ROWS - 1), "big"]}, {}, r"line 61: 'big' in column 'size', where 59 of 60 rows have n"),
    "unknown task": ({}, {"task": "regresion"}, "task must be .*, not 'regresion'; did you mean 'regression'"),
    "unknown filling": ({}, {"missing": "men"}, "missing must be .*, not 'men'; did you mean 'mean'"),
    "target twice": ({}, {"target": ["price", "price"]}, "target names 'price' twice; give each column once"),
    "vanishing target": ({"price": [f"{i}e-320" for i in range(ROWS)]}, {}, "the target does not vary in the training"),
    "unknown kind": ({}, {"val_fraction": "some"}, "val_fraction must be a number, not 'some'"),
    "no file's name": ({}, {"path": "x.csv" * 1000}, "x.csv cannot be read: File name too long"),
    "too few": ({name: values[:3] for name, values in rows().items()}, {}, "x.csv: val_fraction=0.1 holds out 0 of 2"),
    "indicator alone": ({}, {"indicator": True}, "indicator says where a value was missing; give missing="),
    "fraction": ({}, {"test_fraction": 1.0}, "test_fraction is 1.0; it must lie between 0 and 1"),
    "train size": ({}, {"train_size": 44}, "train_size is 44; it must lie between 1 and 43"),
    "three rows": ({name: values[:2] for name, values in rows().items()}, {}, "has 2 rows; training, validation and"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_before_anything_is_trained(write, case):
    changes, options, message = FAULTS[case]
    path = write({**rows(), **changes})
    with pytest.raises(UserError, match=message) as caught:
        table(**{"path": path, "target": "price", **options})
    told = str(caught.value)
    assert told.count("\n") < 3 and len(told) < 500
    assert "x.csv" in told or case in ("no path", *(c for c in FAULTS if c.startswith("unknown")), "indicator alone",
                                       "fraction", "train size")  # fmt: skip


def test_words_that_hardly_come_again_are_refused_unless_they_are_insisted_on(write):
    made = {**rows(n=300), "street": [f"street {i}" for i in range(300)]}
    with pytest.raises(
        UserError, match=r"line 2: 'street 0' in column 'street' is one of 216 words in 216 training rows"
    ):
        table(write(made), "price")
    assert table(write(made), "price", categorical=["street"]).input_shape == (2 + 3 + 216,)


def test_a_fault_from_the_command_line_is_a_line_and_writes_nothing(door, write, tmp_path):
    path = write({**rows(), "size": ["big", *range(ROWS - 1)]})
    ended = door("dataset=table", f"dataset.path={path}", "dataset.target=price", "out=run")
    assert ended.status == 2 and "line 2: 'big' in column 'size'" in ended.err
    assert not (tmp_path / "run").exists()
    ended = door("dataset=table", f"dataset.path={path}", "dataset.target=price", "dataset.taks=binary")
    assert ended.status == 2 and "no key 'dataset.taks'" in ended.err
    with pytest.raises(UserError, match="table has no option taks; did you mean 'task'"):
        load("table", path=path, taks="binary")
    with pytest.raises(UserError, match="drop must be a list of texts, not 'size'"):
        load("table", path=path, target="price", drop="size")


def test_a_rule_learns_a_table(write):
    data = table(write(rows(n=200)), "price")
    torch.manual_seed(0)
    net = localearn.MLP(data.input_shape, 1, widths=(16,)).for_task(data.task)
    record = localearn.MonoForward(net).fit(data, epochs=60, batch_size=32, progress=False, energy=False)
    r2 = record.metric("r2", "test")
    assert r2 is not None and r2 > 0.9 and math.isfinite(r2)


@pytest.mark.parametrize("target", ["price", "town", ["size", "price"]])
def test_a_rule_with_a_recipe_for_values_takes_it_by_what_the_file_holds(write, target):
    """PEPITA has one; the command line and Python agree, whichever the target is."""
    path = write(rows())
    asked = target if isinstance(target, str) else f"[{','.join(target)}]"
    config, choices = cli.compose(["algo=pepita", "dataset=table", f"dataset.path={path}", f"dataset.target={asked}"])
    values = target != "town"
    assert choices["recipe"] == ("values" if values else "dense")
    assert table(path, target).task.has_classes is not values
    assert config.net.init == ("default" if values else "he_uniform")
    assert cli.compose(["algo=pepita", "dataset=table", "dataset.path=no.csv"])[1]["recipe"] == "dense"


def test_codes_are_not_given_to_a_net_that_would_take_them_for_values(write):
    data = table(write(rows()), "price", categories="codes")
    net = localearn.MLP(data.input_shape, 1).for_task(data.task)
    told = r"table has 1 columns of codes \(4\), and MLP takes values alone; use net=deepfm, .*categories=onehot"
    with pytest.raises(localearn.Unsupported, match=told):
        localearn.Backprop(net).fit(data, epochs=1, progress=False, energy=False)
    hot = table(write(rows()), "price")
    deep = localearn.DeepFM(hot.input_shape, 1, categories=(3,)).for_task(hot.task)
    with pytest.raises(localearn.Unsupported, match="table has values alone, and DeepFM takes 1 columns of codes"):
        localearn.Backprop(deep).fit(hot, epochs=1, progress=False, energy=False)
