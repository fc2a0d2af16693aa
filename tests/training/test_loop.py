"""What the loop does with a rule, and what it must not do."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import localearn
from localearn.data import ArrayData, GraphData
from localearn.training import Callback, Context

SGD = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=60)


def backprop(data: localearn.Data, **options: Any) -> localearn.Trainer:
    torch.manual_seed(0)
    return localearn.Backprop(localearn.MLP(data.input_shape, data.classes, widths=[12, 10], **options))


def greedy(data: localearn.Data, **options: Any) -> localearn.Trainer:
    torch.manual_seed(0)
    net = localearn.MLP(data.input_shape, data.classes, widths=[12, 10, 8], **options)
    return localearn.MonoForward(net, schedule="greedy")


def weights_of(trainer: localearn.Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def closeness(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(digits):
    others = itertools.count(5)  # what else the process has drawn before makes no difference

    def trained(seed: int) -> dict[str, torch.Tensor]:
        trainer = backprop(digits, dropout=0.2)  # the weights begin alike; order and dropout are the seed's
        torch.manual_seed(next(others))
        trainer.fit(digits, epochs=2, batch_size=16, seed=seed)
        return weights_of(trainer)

    assert same(trained(1), trained(1))
    assert not same(trained(1), trained(2))


@pytest.mark.parametrize("restore_best", [True, False])
@pytest.mark.parametrize("monitor", ["val_accuracy", "val_loss"])
def test_a_run_ends_with_the_best_epochs_weights_or_the_last_ones(restore_best, monitor, digits):
    seen: list[dict[str, torch.Tensor]] = []

    class Spy(Callback):
        def epoch_ended(self, context: Context) -> None:
            seen.append(weights_of(context.trainer))

    trainer = backprop(digits)
    options = {"optim": functools.partial(torch.optim.SGD, lr=2.0), "restore_best": restore_best, "monitor": monitor}
    record = trainer.fit(digits, epochs=8, batch_size=16, callbacks=[Spy()], **options)
    figures = [line[monitor] for line in record.history]
    best = figures.index(min(figures) if monitor == "val_loss" else max(figures))
    assert record.best_epoch == best + 1 < 8, "else the best and the last are one and the test says nothing"
    assert same(weights_of(trainer), seen[best if restore_best else -1])
    assert record.val_accuracy == record.history[best if restore_best else -1]["val_accuracy"]


def test_patience_ends_a_stage_and_each_stage_has_its_own(digits):
    still = functools.partial(torch.optim.SGD, lr=1e-12)
    record = greedy(digits).fit(digits, epochs=9, batch_size=16, optim=still, patience=2)
    assert [(line["stage"], line["epoch"]) for line in record.history] == [(s, e) for s in range(3) for e in (1, 2, 3)]
    assert record.passes == record.epochs == 9
    assert record.stages == 3


def test_schedules_step_once_an_epoch(digits):
    def rates(schedule: Callable[..., Any] | None, lr: float = 0.1, trainer: Any = backprop) -> list[float]:
        optim = functools.partial(torch.optim.SGD, lr=lr)
        record = trainer(digits).fit(digits, epochs=4, batch_size=16, optim=optim, schedule=schedule)
        return [line["lr"] for line in record.history]

    of = torch.optim.lr_scheduler
    assert rates(None) == [0.1] * 4
    assert rates(functools.partial(of.MultiStepLR, milestones=[1, 3])) == pytest.approx([0.1, 0.01, 0.01, 0.001])
    half_cosine = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert rates(functools.partial(of.CosineAnnealingLR, T_max=4)) == pytest.approx(half_cosine)
    # At so small a rate the validation loss does not move: the first epoch sets the mark, each later one misses it.
    plateau = functools.partial(of.ReduceLROnPlateau, patience=0, factor=0.5)
    assert rates(plateau, lr=1e-7) == pytest.approx([1e-7, 1e-7, 5e-8, 2.5e-8], abs=1e-9)
    # Every stage begins its schedule anew.
    assert rates(functools.partial(of.MultiStepLR, milestones=[1]), trainer=greedy) == pytest.approx(
        [0.1, 0.01, 0.01, 0.01] * 3
    )


def test_clip_norm_bounds_the_norm_of_all_gradients_together(digits):
    norms: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(torch.stack([g.norm() for g in gradients]).norm().item())

    for clip_norm in (None, 0.01):
        backprop(digits).fit(digits, epochs=1, batch_size=16, optim=functools.partial(Spy, lr=1.0), clip_norm=clip_norm)
    free, clipped = norms[1:5], norms[6:]  # the first of each is the trial of the options
    assert min(free) > 0.01
    assert clipped == pytest.approx([0.01] * 4, rel=1e-3)


@pytest.mark.parametrize("before", [False, True])
def test_deterministic_algorithms_are_used_for_the_while(before, digits):
    seen = []

    class Spy(Callback):
        def step_ended(self, context: Context) -> None:
            seen.append(torch.are_deterministic_algorithms_enabled())

    torch.use_deterministic_algorithms(before, warn_only=before)
    try:
        backprop(digits).fit(digits, epochs=1, deterministic=True, callbacks=[Spy()])
        assert torch.get_deterministic_debug_mode() == (1 if before else 0)
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [True]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_kept_features_and_those_of_each_batch_train_alike(precision, tolerance, digits, monkeypatch):
    """Not bit for bit: a matrix product rounds by the shape of its batch, 1,024 rows for the one, 16 for the other."""
    made = _count(monkeypatch, ArrayData, "features")
    inputs: list[torch.Tensor] = []

    class Spy(Callback):
        def step_ended(self, context: Context) -> None:
            assert context.batch
            inputs.append(context.batch.x)

    options: dict[str, Any] = {"optim": SGD, "precision": precision, "callbacks": [Spy()]}
    nets, histories = [], []
    for room in (2**30, 0):
        trainer = greedy(digits, norm="batch")
        record = trainer.fit(digits, epochs=2, batch_size=16, feature_cache_bytes=room, **options)
        nets.append(weights_of(trainer))
        histories.append([line["val_loss"] for line in record.history])
    assert len(made) == 2, "the second and the third stage keep features where they may"
    for kept, fresh in zip(inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :], strict=True):
        assert kept.dtype is fresh.dtype
        assert torch.allclose(kept, fresh, atol=tolerance)
    assert closeness(*nets) < tolerance
    assert histories[0] == pytest.approx(histories[1], abs=tolerance)


def test_kept_features_of_a_graph_train_alike_bit_for_bit(monkeypatch):
    made = _count(monkeypatch, GraphData, "features")
    karate, nets = localearn.load("karate"), []
    nodes = 34
    for room in (4 * 8 * nodes, 4 * 8 * nodes - 1):
        torch.manual_seed(0)
        net = localearn.GNN(karate.input_shape, karate.classes, widths=[8, 8])
        trainer = localearn.MonoForward(net, schedule="greedy")
        trainer.fit(karate, epochs=3, feature_cache_bytes=room)
        nets.append(weights_of(trainer))
    assert len(made) == 1, "kept where the features of all nodes just fit, not where they just do not"
    assert same(*nets)


def test_features_are_not_kept_where_passes_differ(monkeypatch):
    made = _count(monkeypatch, ArrayData, "features")
    data = localearn.load("digits", train_size=60, augment="crop")
    record = greedy(data).fit(data, epochs=2, batch_size=16)
    assert not made
    assert record.status == "completed"


def _count(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> list[None]:
    calls: list[None] = []
    original = getattr(owner, method)

    def spy(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(None)
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, method, spy)
    return calls


@pytest.mark.parametrize("make", [backprop, greedy])
def test_the_test_split_is_read_once_at_the_end(make, digits, monkeypatch):
    read: list[str] = []
    batches = ArrayData.batches

    def spy(self: ArrayData, split: Any, *arguments: Any, **options: Any) -> Any:
        read.append(split)
        return batches(self, split, *arguments, **options)

    monkeypatch.setattr(ArrayData, "batches", spy)
    make(digits).fit(digits, epochs=2, batch_size=16)
    assert read.count("test") == 1
    assert read[-1] == "test"


class NoHostRead(TorchDispatchMode):
    """Fails where a tensor's value, or a shape that depends on values, is asked for: on a GPU that waits for it."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not name.startswith(self.WAITING), f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


class Watch(Callback):
    """Lets nothing read the device from the start of a phase to the last step of its first epoch."""

    def __init__(self) -> None:
        self.watched = 0

    def phase_started(self, context: Context) -> None:
        self.mode = NoHostRead()
        self.mode.__enter__()

    def step_ended(self, context: Context) -> None:
        if context.position.batch == context.batches:
            self.mode.__exit__(None, None, None)
            self.watched += 1


def make_rule(name: str, data: localearn.Data) -> localearn.Trainer:
    net = localearn.MLP(data.input_shape, data.classes, widths=[12, 10], norm="batch", dropout=0.2)
    return {
        "backprop": lambda: localearn.Backprop(net),
        "mono_forward": lambda: localearn.MonoForward(net),
        "greedy": lambda: localearn.MonoForward(net, schedule="greedy"),
        "direct_feedback_alignment": lambda: localearn.DirectFeedbackAlignment(net),
        "forward_gradient": lambda: localearn.ForwardGradient(net, tangents=2),
        "in weights": lambda: localearn.ForwardGradient(net, space="weight"),
    }[name]()


@pytest.mark.parametrize(
    "name", ["backprop", "mono_forward", "greedy", "direct_feedback_alignment", "forward_gradient", "in weights"]
)
def test_nothing_inside_an_epoch_waits_for_the_device(name):
    data, watch = localearn.load("digits", train_size=40, augment="crop_flip"), Watch()
    record = make_rule(name, data).fit(data, epochs=1, batch_size=16, clip_norm=1.0, callbacks=[watch])
    assert record.status == "completed"
    assert watch.watched == record.stages


def test_the_watch_would_see_a_rule_that_reads():
    class Reads(localearn.Backprop):
        def gradients(self, batch):
            metrics = super().gradients(batch)
            float(metrics["loss"])
            return metrics

    data, watch = localearn.load("digits", train_size=40), Watch()
    try:
        with pytest.raises(AssertionError, match="waits for the device"):
            Reads(localearn.MLP(data.input_shape, data.classes, widths=[8])).fit(data, epochs=1, callbacks=[watch])
    finally:
        watch.mode.__exit__(None, None, None)


def test_the_watch_above_would_see_a_read():
    with NoHostRead(), pytest.raises(AssertionError, match="waits for the device"):
        float(torch.ones(()))
