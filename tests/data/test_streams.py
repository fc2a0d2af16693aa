"""Data that are streamed from loaders train as data held whole do, and are never held."""

import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import localearn
from localearn.data import ArrayData, LoaderData, from_arrays, from_loader
from localearn.errors import UserError

SIZES = {"train": 53, "val": 20, "test": 23}
RANDOM = np.random.RandomState(0)
X = {part: RANDOM.randn(size, 1, 6, 5).astype(np.float32) for part, size in SIZES.items()}
Y = {part: np.arange(size) % 3 for part, size in SIZES.items()}
for split in SIZES:
    X[split] += Y[split][:, None, None, None]


def loaders(batch_size: int | None = 7, x: Any = X, y: Any = Y, **options: Any) -> list[DataLoader]:
    """Loaders of the three parts, of which the training part's has the options."""
    parts = [TensorDataset(torch.as_tensor(x[part]), torch.as_tensor(y[part])) for part in SIZES]
    return [DataLoader(parts[0], batch_size, **options), *(DataLoader(part, batch_size) for part in parts[1:])]


def stream(batch_size: int = 7, **options: Any) -> LoaderData:
    return LoaderData(*loaders(batch_size, **options))


def of_train(dataset: Dataset, batch_size: int | None = 7, **options: Any) -> LoaderData:
    """Return data whose training part is this dataset."""
    return LoaderData(DataLoader(dataset, batch_size, **options), *loaders()[1:])


def passed(data: localearn.Data, part: Any = "train", batch_size: int = 16, seed: int | None = 0, skip: int = 0) -> Any:
    """Return x and y of each batch of a pass."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return [(batch.x, batch.y) for batch in data.batches(part, batch_size, generator=generator, skip=skip)]


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


def held(**options: Any) -> ArrayData:
    return from_arrays(
        *(torch.from_numpy(X["train"]), Y["train"], torch.from_numpy(X["test"]), Y["test"]),
        x_val=torch.from_numpy(X["val"]),
        y_val=Y["val"],
        normalize="none",
        **options,
    )


class InOrder(ArrayData):
    """Data held whole that are never shuffled, nor kept as features: as a stream of an unshuffled loader."""

    def batches(self, split: Any, batch_size: int, *, generator: Any = None, skip: int = 0) -> Any:
        if generator is None or split != "train":
            return super().batches(split, batch_size, skip=skip)
        kept = self.sizes[split] // batch_size + (self.sizes[split] % batch_size > 1)
        return (
            batch for batch, _ in zip(super().batches(split, batch_size, skip=skip), range(kept - skip), strict=False)
        )


def in_order() -> InOrder:
    x = {part: torch.from_numpy(rows) for part, rows in X.items()}
    data = InOrder("loader", x, {part: torch.from_numpy(labels) for part, labels in Y.items()}, 3)  # type: ignore[arg-type]
    data.augmented = True
    return data


class Augmented(Dataset):
    """Rows with noise of all three global generators."""

    shift = 0

    def __len__(self) -> int:
        return SIZES["train"]

    def __getitem__(self, i: int) -> Any:
        noise = torch.rand(1, 6, 5) + random.random() + np.random.rand()
        return torch.from_numpy(X["train"][i]) + noise + self.shift, int(Y["train"][i])


class Endless(IterableDataset):
    """An iterable dataset, shuffled as users shuffle those, whose rows may become more or fewer."""

    def __init__(self, rows: int = SIZES["train"]) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return ((torch.from_numpy(X["train"][i]), int(Y["train"][i])) for i in torch.randperm(self.rows).tolist())


def trainer_of(data: localearn.Data, rule: Any = localearn.MonoForward, **options: Any) -> localearn.Trainer:
    torch.manual_seed(0)
    return rule(localearn.MLP(data.input_shape, data.classes, widths=[12, 10], norm="batch", dropout=0.2), **options)


def weights(trainer: localearn.Trainer) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in trainer.state_dict().values() if isinstance(tensor, torch.Tensor)]


def seed_all() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)


RULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "backprop": (localearn.Backprop, {}),
    "mono_forward, greedy": (localearn.MonoForward, {"schedule": "greedy"}),
    "cafo, closed form": (localearn.CaFo, {"solver": "closed_form"}),
    "forward_forward": (localearn.ForwardForward, {}),
    "direct_feedback_alignment": (localearn.DirectFeedbackAlignment, {}),
}


@pytest.mark.parametrize("batch_size", [1, 8, 13, 53, 100])
@pytest.mark.parametrize("of_loader", [1, 5, 8, 53])
def test_batches_are_cut_anew_to_the_size_that_is_asked_for(of_loader, batch_size):
    data = stream(of_loader)
    for part in SIZES:
        for skip in (0, 1, 2):
            expected = passed(in_order(), part, batch_size, None, skip)
            assert same(passed(data, part, batch_size, None, skip), expected)
            assert same(passed(data, part, batch_size, 3, skip), passed(in_order(), part, batch_size, 3, skip))


@pytest.mark.parametrize("kind", RULES)
def test_a_rule_learns_from_an_unshuffled_stream_what_it_learns_from_the_same_rows_held_whole(kind):
    rule, options = RULES[kind]
    streamed, whole = trainer_of(stream(), rule, **options), trainer_of(stream(), rule, **options)
    record = streamed.fit(stream(), epochs=2, batch_size=13)
    other = whole.fit(in_order(), epochs=2, batch_size=13)
    assert all(torch.equal(a, b) for a, b in zip(weights(streamed), weights(whole), strict=True))
    assert (record.test_accuracy, record.test_loss) == (other.test_accuracy, other.test_loss)
    assert record.diagnostics["data"] == list(stream().notes)


def test_a_shuffled_stream_is_learned_from_as_well_as_data_held_whole_and_with_a_worker_alike():
    digits = localearn.load("digits")
    x, y = ({part: passed(digits, part, 10**6, None)[0][i] for part in SIZES} for i in (0, 1))
    parts = (digits, *(LoaderData(*loaders(32, x, y, shuffle=True, num_workers=n)) for n in (0, 1)))
    accuracies = []
    for data in parts:
        torch.manual_seed(0)
        trainer = localearn.Backprop(localearn.MLP(data.input_shape, data.classes, widths=[64, 64]))
        accuracies.append(trainer.fit(data, epochs=5, batch_size=64).test_accuracy)
    assert accuracies[0] is not None and accuracies[0] > 0.8
    assert accuracies[1] == accuracies[2] == pytest.approx(accuracies[0], abs=0.05)


def staying() -> LoaderData:
    """Return data of a loader whose worker stays, and has drawn for the user already."""
    loader = DataLoader(Augmented(), 7, shuffle=True, num_workers=1, persistent_workers=True)
    assert len(list(loader)) == 8
    return LoaderData(loader, *loaders()[1:])


SHUFFLED: dict[str, Any] = {
    "shuffle": lambda: stream(shuffle=True),
    "augmented": lambda: of_train(Augmented(), shuffle=True),
    "augmented in a worker": lambda: of_train(Augmented(), shuffle=True, num_workers=1),
    "augmented in a worker that stays": staying,
    "a generator of the loader's": lambda: of_train(Augmented(), shuffle=True, generator=torch.Generator()),
    "a generator of the sampler's": lambda: of_train(
        Augmented(), sampler=RandomSampler(Augmented(), generator=torch.Generator())
    ),
    "a sampler that is told the epoch": lambda: stream(sampler=DistributedSampler(Augmented(), 1, 0)),
    "iterable": lambda: of_train(Endless()),
    "iterable, one row a batch": lambda: of_train(Endless(), batch_size=1),
}


@pytest.mark.parametrize("kind", SHUFFLED)
def test_an_order_depends_on_the_generator_alone_and_disturbs_nobody(kind):
    data = SHUFFLED[kind]()
    first, other = passed(data), passed(data, seed=1)
    assert not same(first, other)
    seed_all()
    undisturbed = [torch.rand(3).tolist(), random.random(), np.random.rand()]
    seed_all()
    again = []
    for batch in data.batches("train", 16, generator=torch.Generator().manual_seed(0)):
        again.append((batch.x, batch.y))
        if len(again) == 2:
            drawn = [torch.rand(3).tolist(), random.random(), np.random.rand()]
            torch.rand(7)
        next(data.batches("train", 5))  # another pass begins meanwhile
    assert drawn == undisturbed and same(again, first)
    assert same(passed(SHUFFLED[kind]()), first)  # whatever was drawn from a loader before
    assert same(passed(data, skip=2), first[2:])
    assert same(passed(data, "train", seed=None), passed(data, "train", seed=None))


def test_the_generator_is_used_at_once_and_the_state_it_has_then_is_of_no_matter():
    data, generator = of_train(Augmented(), shuffle=True), torch.Generator().manual_seed(0)
    batches = data.batches("train", 16, generator=generator, skip=1)
    generator.manual_seed(99)
    assert torch.equal(next(batches).x, passed(data)[1][0])
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(99).get_state())


def test_a_loaders_own_generator_is_left_as_it_was():
    own = torch.Generator().manual_seed(3)
    data = of_train(Augmented(), shuffle=True, generator=own)
    passed(data)
    assert torch.equal(own.get_state(), torch.Generator().manual_seed(3).get_state())


@pytest.mark.parametrize("kind", ["augmented", "augmented in a worker", "a generator of the loader's", "iterable"])
@pytest.mark.parametrize("step", [2, 4, 6])
def test_an_interrupted_run_goes_on_to_the_same_bits(kind, step, tmp_path):
    options: dict[str, Any] = {"epochs": 3, "batch_size": 16, "energy": False}  # 4 steps an epoch
    whole = trainer_of(stream())
    whole.fit(SHUFFLED[kind](), **options)
    taken = 0

    class Counted(localearn.Callback):
        def step_ended(self, context: Any) -> None:
            nonlocal taken
            taken += 1
            if taken == step:
                os.kill(os.getpid(), signal.SIGINT)

    options["callbacks"] = [Counted()]
    out = tmp_path / "run"
    assert trainer_of(stream()).fit(SHUFFLED[kind](), out=out, **options).status == "interrupted"
    again = trainer_of(stream())
    torch.rand(3)
    assert again.fit(SHUFFLED[kind](), out=out, resume=True, **options).status == "completed"
    assert taken == 12
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))


def test_ctrl_c_reaches_workers_too_and_does_not_end_them():
    data = of_train(Augmented(), shuffle=True, num_workers=1, worker_init_fn=seen_by)
    batches = data.batches("train", 7, generator=torch.Generator().manual_seed(0))
    found = [next(batches)]
    workers = multiprocessing.active_children()
    assert workers and all(worker.pid for worker in workers)
    for worker in workers:
        os.kill(worker.pid or 0, signal.SIGINT)
    found += batches
    assert same([(batch.x, batch.y) for batch in found], passed(data, batch_size=7))
    assert max(float(batch.x.max()) for batch in found) > 1000  # the user's own worker_init_fn ran


def seen_by(worker: int) -> None:
    Augmented.shift = 1000  # in the worker alone


class Made(Dataset):
    """256 MiB of rows that are made when they are asked for, and how much memory the process has then."""

    def __init__(self) -> None:
        self.made, self.most = 0, 0

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, i: int) -> Any:
        self.made += 1
        if self.made % 64 == 0:
            self.most = max(self.most, resident())
        return torch.full((65536,), i % 256, dtype=torch.uint8), i % 4


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell a process's memory so")
def test_memory_holds_a_few_batches_and_not_the_data():
    made = Made()
    small = Made()
    few = DataLoader(torch.utils.data.Subset(small, range(40)), 20)
    before = resident()
    data = from_loader(DataLoader(made, 8, shuffle=True), few, val=few)
    assert isinstance(data, LoaderData) and data.sizes == {"train": 4096, "val": 40, "test": 40}
    rows = sum(len(batch.y) for batch in data.batches("train", 12, generator=torch.Generator()))
    assert (rows, made.made) == (4096, 2 * 4096)
    assert made.most - before < 64 * 2**20


def test_bytes_are_divided_by_255_and_images_have_channels_first():
    levels = {part: RANDOM.randint(256, size=(size, 3, 6, 5)).astype(np.uint8) for part, size in SIZES.items()}
    data = LoaderData(*loaders(x=levels))
    assert (data.kind, data.input_shape) == ("image", (3, 6, 5))
    (batch,) = data.batches("test", 100)
    assert torch.equal(batch.x, torch.from_numpy(levels["test"]).float() / 255)
    last = [[(x.transpose(0, 2, 3, 1), y)] for x, y in zip(levels.values(), Y.values(), strict=True)]
    assert same(passed(LoaderData(*last), "test", seed=None), passed(data, "test", seed=None))
    grey = LoaderData(*loaders(x={part: rows[:, 0] for part, rows in levels.items()}))
    assert grey.input_shape == (1, 6, 5)
    vectors = LoaderData(*loaders(x={part: rows[:, 0, 0].astype(np.float64) for part, rows in levels.items()}))
    (batch,) = vectors.batches("test", 100)
    assert vectors.kind == "vector" and torch.equal(batch.x, torch.from_numpy(levels["test"][:, 0, 0]).float())


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (lambda y: [("ash", "oak", "yew")[i] for i in y.tolist()], ("ash", "oak", "yew")),
        (lambda y: y + 1, ("1", "2", "3")),
        (lambda y: y.double(), None),
        (lambda y: torch.eye(3)[y], None),
        (lambda y: y[:, None], None),
    ],
)
def test_labels_are_taken_as_they_are_written(write, names):
    batches = [[(x, write(y)) for x, y in loader] for loader in loaders()]
    data = LoaderData(*batches)
    assert (data.classes, data.class_names) == (3, names)
    for part in SIZES:
        assert torch.cat([y for _, y in passed(data, part, seed=None)]).tolist() == Y[part].tolist()


def test_a_loader_may_use_its_memory_again():
    class Reused:
        def __iter__(self) -> Any:
            x, y = np.zeros((5, 4), np.uint8), np.zeros(5, np.int64)
            for i in range(6):
                x[:], y[:] = i, i % 2
                yield x, y

    data = LoaderData(Reused(), Reused(), Reused())
    expected = torch.arange(30) // 5
    for batch_size in (3, 5, 7, 12, 30):
        found = [(batch.x.clone(), batch.y.clone()) for batch in data.batches("train", batch_size)]
        x, y = (torch.cat([pair[i] for pair in found]) for i in (0, 1))
        assert torch.equal((255 * x[:, 0]).round().long(), expected) and torch.equal(y, expected % 2)


def test_batches_go_where_the_data_are_sent():
    data = stream().to("meta")
    batch = next(data.batches("train", 9))
    assert (batch.x.device.type, batch.y.device.type, len(batch.y)) == ("meta", "meta", 9)
    assert next(stream().batches("train", 9)).x.device.type == "cpu"


def test_a_fingerprint_is_of_names_shapes_and_labels():
    prints = [
        stream().fingerprint(),
        LoaderData(*loaders(), name="other").fingerprint(),
        stream(x={part: rows[..., 1:] for part, rows in X.items()}).fingerprint(),
        stream(x={part: (9 * rows).astype(np.uint8) for part, rows in X.items()}).fingerprint(),
        stream(y={part: labels[::-1].copy() for part, labels in Y.items()}).fingerprint(),
        stream(y=Y | {"test": (Y["test"] + 1) % 3}).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert stream(11, num_workers=1).fingerprint() == prints[0]
    assert stream(x={part: rows + 1 for part, rows in X.items()}).fingerprint() == prints[0]
    assert "rows are not hashed" in stream().notes[1]


def test_an_order_that_never_changes_is_told(caplog):
    notes = stream().notes
    assert len(notes) == 3 and "does not shuffle" in notes[2]
    assert [record.getMessage() for record in caplog.records] == [f"loader: {notes[2]}"]
    assert all(len(SHUFFLED[kind]().notes) == 2 for kind in SHUFFLED)


def test_loaders_are_streamed_where_nothing_has_to_be_drawn_or_computed():
    train, val, test = loaders()
    data = from_loader(train, test, val=val, name="mine")
    assert isinstance(data, LoaderData) and (data.name, data.sizes) == ("mine", SIZES)
    assert isinstance(from_loader(train, test, val=val, stream=True), LoaderData)
    whole = from_loader(train, test, val=val, stream=False, normalize="none")
    assert isinstance(whole, ArrayData) and whole.fingerprint() == held().fingerprint()
    given: list[dict[str, Any]] = [{"normalize": "none"}, {"augment": "crop"}]
    for others in given:
        assert isinstance(from_loader(train, test, val=val, **others), ArrayData)
    lacking: list[dict[str, Any]] = [{}, {"test": test}, {"val": val}]
    for missing in lacking:
        assert isinstance(from_loader(train, **missing), ArrayData)
        with pytest.raises(UserError, match=r"^stream=True needs test= and val=") as caught:
            from_loader(train, stream=True, **missing)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"^streamed data take no augment, seed; leave it out, or give stream=False"):
        from_loader(train, test, val=val, stream=True, augment="crop", seed=3)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], r"own: train gives no batch"),
        (None, r"own: train is NoneType; a DataLoader is expected"),
        (Augmented(), r"own: train is Augmented; a DataLoader is expected"),
        (iter([]), r"own: train is list_iterator, which gives its batches once; a DataLoader is expected"),
        ([torch.ones(4, 3)], r"own: train batch 0 is Tensor; a pair"),
        ([(torch.ones(4, 3), torch.arange(4), 1)], r"own: train batch 0 is 3 values; a pair"),
        ([(torch.ones(4, 3), torch.arange(3))], r"x_train of batch 0 has 4 rows and y 3 labels"),
        ([(torch.ones(4), torch.arange(4))], r"x_train of batch 0 has shape \(4,\)"),
        ([(torch.ones(4, 3), torch.arange(4)), (torch.ones(4, 2), torch.arange(4))], r"batch 1 has .* of shape \(2,\)"),
        ([(torch.ones(4, 3), torch.arange(4)), (torch.ones(4, 3).byte(), torch.arange(4))], r"batch 1 has torch.uint8"),
        ([(torch.ones(4, 3) / 0, torch.arange(4))], r"x_train of batch 0 holds 12 of 12 values that are NaN"),
        ([(torch.ones(4, 3), torch.arange(4) - 1)], r"y_train of batch 0 holds -1; labels run from 0"),
        ([(torch.ones(4, 3), torch.arange(4) / 2)], r"y_train of batch 0 is float32 and holds 0\.5"),
        ([(torch.ones(4, 3), ["a", "b", "a", "b"]), (torch.ones(2, 3), [0, 1])], r"y_train has words in one batch"),
        ([(torch.ones(4, 3), torch.zeros(4))], r"training labels are all 0; at least 2"),
        ([(torch.ones(4, 3), torch.tensor([0, 1, 3, 3]))], r"training labels reach 3 but none is 2"),
        ([(torch.ones(4, 3), torch.arange(4) % 2)], r"a held-out label is 2; the training labels end at 1"),
        ([(torch.ones(4, 2), torch.arange(4))], r"x_val of batch 0 has .* \(3,\), the first training batch .* \(2,\)"),
        ([(torch.ones(4, 3), torch.arange(4)), ((torch.ones(4, 3).to_sparse()), torch.arange(4))], r"a sparse tensor"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_named_in_a_line(batches, message):
    other = [(torch.ones(6, 3), torch.arange(6) % 3)]
    with pytest.raises(UserError, match=message) as caught:
        LoaderData(batches, other, other, name="own")
    assert str(caught.value).startswith("own") and "\n" not in str(caught.value)


def test_a_held_out_part_without_a_batch_is_named():
    with pytest.raises(UserError, match=r"loader: test gives no batch"):
        LoaderData(loaders()[0], loaders()[1], [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (40, r"^loader: train gives 40 rows in a pass, and its first pass gave 45$"),
        (50, r"^loader: train gives more than the 45 rows that its first pass gave$"),
    ],
)
def test_another_number_of_rows_in_a_later_pass_is_told(rows, message):
    dataset = Endless(45)
    data = of_train(dataset)
    dataset.rows = rows
    with pytest.raises(UserError, match=message):
        trainer_of(data).fit(data, epochs=1, batch_size=16)


@pytest.mark.parametrize("label", [3, "oak"])
def test_a_label_that_appears_in_a_later_pass_is_told(label):
    train = [(torch.ones(6, 3), [0, 1, 2, 0, 1, 2])]
    data = LoaderData(train, train, train)
    assert len(passed(data)) == 1
    train[0] = (torch.ones(6, 3), [label] * 6)
    with pytest.raises(UserError, match=rf"y_train holds {label}, which no loader gave in its first pass"):
        passed(data)


def test_a_batch_that_cannot_be_and_a_part_that_is_not_there_are_named():
    with pytest.raises(UserError, match="batch_size is 0"):
        stream().batches("train", 0)
    with pytest.raises(ValueError, match="loader has no all split, only train, val, test"):
        stream().batches("all", 3)  # type: ignore[arg-type]


def test_features_are_not_kept_and_ranks_do_not_share():
    data = stream()
    with pytest.raises(ValueError, match="its features cannot be cached"):
        data.features("stage", lambda x: x, 8)
    assert data.part(0, 1) is data
    with pytest.raises(UserError, match=r"cannot be divided over ranks; use parallel=none, or hold") as caught:
        data.part(0, 2)
    assert "\n" not in str(caught.value)


def test_an_error_of_a_users_dataset_comes_out_and_leaves_the_generators():
    class Broken(Augmented):
        def __getitem__(self, i: int) -> Any:
            torch.rand(1)
            raise LookupError(f"no row {i}")

    state = torch.get_rng_state()
    with pytest.raises(LookupError, match="no row 0"):
        of_train(Broken())
    assert torch.equal(torch.get_rng_state(), state)
