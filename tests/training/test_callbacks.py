"""Callbacks: which events come in which order, what they see, how they stop a run, and what they cost."""

import functools
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import localearn
from localearn.cli import run
from localearn.errors import UserError
from localearn.training import Callback, Context, Settings
from localearn.training.callbacks import Callbacks, attached
from localearn.training.loading import BEFORE, resumed

SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 16}  # 60 rows are 4 steps an epoch
SGD = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=60)


def rule_of(name: str, data: localearn.Data) -> localearn.Trainer:
    torch.manual_seed(0)
    net = localearn.MLP(data.input_shape, data.classes, widths=[12, 10], dropout=0.2)
    return {
        "joint": lambda: localearn.MonoForward(net),
        "greedy": lambda: localearn.MonoForward(net, schedule="greedy"),
        "one pass": lambda: localearn.CaFo(net),
    }[name]()


class Told(Callback):
    """Writes down every event, with where the run was."""

    def __init__(self, stop_at: tuple[str, int] | None = None, kill_at: tuple[str, int] | None = None):
        self.events: list[str] = []
        self.where: list[tuple[int, int, int]] = []
        self.stop_at, self.kill_at = stop_at, kill_at
        self.record: localearn.Record | None = None

    def note(self, event: str, context: Context) -> None:
        self.events.append(event)
        position = context.position
        self.where.append((position.stage, position.epoch, position.batch))
        now = (event, self.events.count(event))
        if now == self.stop_at:
            context.stop("enough")
        if now == self.kill_at:
            raise OddError("mine")

    def run_started(self, context: Context) -> None:
        self.note("run_started", context)

    def phase_started(self, context: Context) -> None:
        self.note("phase_started", context)

    def step_ended(self, context: Context) -> None:
        self.note("step_ended", context)

    def epoch_ended(self, context: Context) -> None:
        self.note("epoch_ended", context)

    def phase_ended(self, context: Context) -> None:
        self.note("phase_ended", context)

    def run_ended(self, context: Context) -> None:
        self.note("run_ended", context)
        self.record = context.record


class OddError(Exception):
    """An error of a user's own."""


EPOCH = ["step_ended"] * 4 + ["epoch_ended"]


@pytest.mark.parametrize(("name", "phases", "epochs"), [("joint", 1, 2), ("greedy", 2, 2), ("one pass", 2, 1)])
def test_the_order_of_events(name, phases, epochs, digits):
    told = Told()
    record = rule_of(name, digits).fit(digits, callbacks=[told], **SMALL)
    assert record.stages == phases
    phase = ["phase_started", *EPOCH * epochs, "phase_ended"]
    assert told.events == ["run_started", *phase * phases, "run_ended"]
    steps = [(s, e, b) for s in range(phases) for e in range(epochs) for b in range(1, 5)]
    assert [w for w, event in zip(told.where, told.events, strict=True) if event == "step_ended"] == steps
    assert told.record is record
    assert record.status == "completed" and record.test_accuracy is not None


def test_what_a_callback_sees(digits, tmp_path):
    class Sees(Callback):
        def __init__(self) -> None:
            self.losses: list[torch.Tensor] = []
            self.lines: list[dict[str, Any]] = []
            self.rows = 0

        def run_started(self, context: Context) -> None:
            assert (context.rank, context.ranks) == (0, 1)
            assert context.line == {} and context.record is None
            assert context.folder == tmp_path / "run"
            assert context.settings.batch_size == 16
            assert context.net is trainer.net and context.trainer is trainer

        def phase_started(self, context: Context) -> None:
            assert (context.epochs, context.batches) == (2, 4)
            assert context.phase is context.phases[context.position.stage]
            assert isinstance(context.optimizer, torch.optim.SGD)

        def step_ended(self, context: Context) -> None:
            assert context.batch
            assert all(p.grad is not None for p in context.phase.parameters)
            self.losses.append(context.metrics["loss"] * len(context.batch.y))
            self.rows += len(context.batch.y)

        def epoch_ended(self, context: Context) -> None:
            self.lines.append(context.line)
            (last,) = (context.folder or Path()).joinpath("metrics.jsonl").read_text().splitlines()[-1:]
            assert json.loads(last)["passes"] == context.position.passes, "written before the callbacks are told"

    sees, trainer = Sees(), rule_of("joint", digits)
    record = trainer.fit(digits, callbacks=[sees], out=tmp_path / "run", optim=SGD, **SMALL)
    assert sees.lines == record.history
    assert not any(loss.requires_grad for loss in sees.losses)
    means = [float(torch.stack(sees.losses[4 * e : 4 * e + 4]).sum() / (sees.rows / 2)) for e in range(2)]
    assert means == pytest.approx([line["train_loss"] for line in record.history], rel=1e-5)


@pytest.mark.parametrize("name", ["joint", "greedy", "one pass"])
def test_the_weights_are_the_same_bits_with_and_without_callbacks(name, digits):
    def weights(callbacks: list[Callback]) -> dict[str, torch.Tensor]:
        trainer = rule_of(name, digits)
        trainer.fit(digits, callbacks=callbacks, **SMALL)
        return trainer.state_dict()

    without, given = weights([]), weights([Told(), Callback()])
    assert all(torch.equal(value, given[key]) for key, value in without.items())


def test_steps_are_told_only_to_those_that_ask():
    class Steps(Callback):
        def step_ended(self, context: Context) -> None:
            pass

    class Epochs(Callback):
        def epoch_ended(self, context: Context) -> None:
            pass

    class More(Steps):
        pass

    steps, more, patched = Steps(), More(), Epochs()
    patched.step_ended = lambda context: None
    assert Callbacks([Callback(), steps, Epochs(), more, patched]).step_callbacks == (steps, more, patched)


class NoTransfer(TorchDispatchMode):
    """Counts the operations that bring a value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith(("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")):
            self.reads[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reading", [False, True])
def test_calling_callbacks_reads_nothing_from_the_device(reading, digits):
    class Steps(Callback):
        def step_ended(self, context: Context) -> None:
            if reading:
                float(context.metrics["loss"])

    def reads(callbacks: list[Callback]) -> Counter[str]:
        mode = NoTransfer()
        with mode:
            rule_of("greedy", digits).fit(digits, callbacks=callbacks, **SMALL)
        return mode.reads

    more = reads([Steps()]) - reads([])
    assert more == ({"_local_scalar_dense": 2 * 2 * 4} if reading else {})


@pytest.mark.parametrize(
    ("event", "number", "events", "epochs"),
    [
        ("run_started", 1, ["run_started", "run_ended"], 0),
        ("phase_started", 1, ["run_started", "phase_started", "run_ended"], 0),
        ("step_ended", 2, ["run_started", "phase_started", "step_ended", "step_ended", "run_ended"], 0),
        ("step_ended", 4, ["run_started", "phase_started", *EPOCH, "run_ended"], 1),  # the epoch was over
        ("epoch_ended", 1, ["run_started", "phase_started", *EPOCH, "run_ended"], 1),
        ("phase_ended", 1, ["run_started", "phase_started", *EPOCH * 2, "phase_ended", "run_ended"], 2),
    ],
)
@pytest.mark.parametrize("name", ["joint", "greedy"])
def test_a_callback_stops_a_run_that_goes_on_to_the_same_bits(name, event, number, events, epochs, digits, tmp_path):
    whole, trainer = rule_of(name, digits), rule_of(name, digits)
    whole.fit(digits, **SMALL)
    told, beside, out = Told(stop_at=(event, number)), Told(), tmp_path / "run"
    record = trainer.fit(digits, callbacks=[told, beside], out=out, **SMALL)
    assert told.events == beside.events == events
    assert (record.status, record.error) == ("stopped", "enough")
    assert record.epochs == epochs
    assert record.test_accuracy is None and not (out / "net.safetensors").exists()
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"

    again, rest = rule_of(name, digits), Told()
    assert again.fit(digits, callbacks=[rest], out=out, resume=True, **SMALL).status == "completed"
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.state_dict().items())
    both = Counter(told.events) + Counter(rest.events)
    phases = 1 if name == "joint" else 2
    assert (both["step_ended"], both["epoch_ended"]) == (phases * 8, phases * 2)


def test_a_pass_of_sums_that_is_stopped_is_taken_again(digits, tmp_path):
    whole, again, out = rule_of("one pass", digits), rule_of("one pass", digits), tmp_path / "run"
    whole.fit(digits, **SMALL)
    told = Told(stop_at=("step_ended", 6))
    assert rule_of("one pass", digits).fit(digits, callbacks=[told], out=out, **SMALL).status == "stopped"
    rest = Told()
    again.fit(digits, callbacks=[rest], out=out, resume=True, **SMALL)
    assert rest.events.count("step_ended") == 4, "the second phase from its beginning"
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.state_dict().items())


def test_the_first_reason_counts(digits):
    class Also(Callback):
        def epoch_ended(self, context: Context) -> None:
            assert context.stop_reason == "enough"
            context.stop("too late")

    record = rule_of("joint", digits).fit(digits, callbacks=[Told(stop_at=("epoch_ended", 1)), Also()], **SMALL)
    assert record.error == "enough"


@pytest.mark.parametrize(
    "event", ["run_started", "phase_started", "step_ended", "epoch_ended", "phase_ended", "run_ended"]
)
def test_an_error_of_a_callback_is_raised_as_it_is(event, digits, tmp_path):
    wrong, other = Told(kill_at=(event, 1)), Told()
    with pytest.raises(OddError, match=r"^mine$"):
        rule_of("joint", digits).fit(digits, callbacks=[wrong, other], out=tmp_path, **SMALL)
    assert wrong.events[-1] == other.events[-1] == "run_ended", "all are told how the run has ended"
    assert wrong.events.count("run_ended") == 1
    record = json.loads((tmp_path / "run.json").read_text())
    if event == "run_ended":
        assert record["status"] == "completed", "its files are whole before"
    else:
        assert (record["status"], record["error"]) == ("failed", "OddError: mine")
        assert other.record is not None and other.record.status == "failed"


def test_a_signal_and_a_diverged_run_are_told(digits, tmp_path):
    class Signals(Told):
        def step_ended(self, context: Context) -> None:
            super().step_ended(context)
            signal.raise_signal(signal.SIGINT)

    signals = Signals()
    assert rule_of("joint", digits).fit(digits, callbacks=[signals], out=tmp_path, **SMALL).status == "interrupted"
    assert signals.events == ["run_started", "phase_started", "step_ended", "run_ended"]

    class Poison(Told):
        def step_ended(self, context: Context) -> None:
            with torch.no_grad():
                nn.init.constant_(next(context.net.parameters()), float("nan"))

    poison = Poison()
    assert rule_of("joint", digits).fit(digits, callbacks=[poison], **SMALL).status == "diverged"
    assert poison.events == ["run_started", "phase_started", "run_ended"]
    assert poison.record is not None and poison.record.status == "diverged"


@pytest.mark.parametrize(
    ("callbacks", "told"),
    [
        (Callback(), "must be a list of localearn.Callback, not Callback"),
        ("print", "must be a list of localearn.Callback, not str"),
        ([Told], "has the class Told; pass an instance"),
        ([print], "which is not a localearn.Callback"),
    ],
)
def test_what_is_no_callback_is_refused_before_training(callbacks, told, digits, tmp_path):
    with pytest.raises(UserError, match=told):
        rule_of("joint", digits).fit(digits, callbacks=callbacks, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_attached_callbacks_are_called_in_the_block_alone(digits):
    outer, inner, own = Told(), Told(), Told()
    with attached(outer):
        with attached(inner):
            rule_of("joint", digits).fit(digits, callbacks=[own], **SMALL)
        rule_of("joint", digits).fit(digits, **SMALL)
    rule_of("joint", digits).fit(digits, **SMALL)
    assert [told.events.count("run_ended") for told in (outer, inner, own)] == [2, 1, 1]
    assert not hasattr(Settings(), "callbacks"), "they are no option of a run, and no part of its record"


OWN = """
from pathlib import Path

import localearn


class Log(localearn.Callback):
    def __init__(self, path: str, every: int = 1):
        self.path, self.every = Path(path), every

    def epoch_ended(self, context):
        if context.position.epoch % self.every == 0:
            with self.path.open("a") as file:
                file.write(f"{context.position.epoch}\\n")


def number():
    return 3
"""
TINY = ("dataset.train_size=60", "net.widths=[8]", "batch_size=16", "epochs=4", "progress=false")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Give a module of a user's own, `own_callbacks`, in the folder of the run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own_callbacks.py").write_text(OWN)
    yield
    import sys

    sys.modules.pop("own_callbacks", None)


def test_a_configuration_names_callbacks(own, tiny, door, strike, read):
    entry = "callbacks=[{_target_:own_callbacks.Log,path:log.txt,every:2}]"
    strike(10, signal.SIGTERM)  # in the third epoch
    ended = door(*TINY, "energy.enabled=false", entry, "out=run")
    assert ended.status == 143, ended.err
    assert "resume=run trust=[own_callbacks.Log]" in ended.err
    assert Path("log.txt").read_text() == "2\n"
    refused = door("resume=run")
    assert refused.status == 2 and "trust=own_callbacks.Log" in refused.err
    assert door("resume=run", "trust=own_callbacks.Log").status == 0
    assert Path("log.txt").read_text() == "2\n4\n"
    (saved,) = read.record("run")["config"]["callbacks"]
    assert saved == {"_target_": "own_callbacks.Log", "path": "log.txt", "every": 2}
    assert door(*TINY, "energy.enabled=false", "out=without").status == 0
    assert read.net("run") == read.net("without")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("callbacks=3", "callbacks must be a list of classes"),
        ("callbacks=[progress]", "callbacks must be a list of classes"),
        ("callbacks=[{path: x}]", "callbacks must be a list of classes"),
        ("callbacks=[{_target_: own_callbacks.Lug}]", "did you mean 'Log'"),
        ("callbacks=[{_target_: own_callbacks.Log}]", "callbacks[0].path is missing"),
        ("callbacks=[{_target_: own_callbacks.Log, path: x, every: often}]", "every must be a whole number"),
        ("callbacks=[{_target_: own_callbacks.number}]", "returns int, not a localearn.Callback"),
    ],
)
def test_a_wrong_entry_is_told_in_a_line(given, told, own, door):
    ended = door(*TINY, given, "out=run")
    assert ended.status == 2
    assert told in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not Path("run").exists()


def test_a_configuration_older_than_callbacks_is_resumed(own, door, strike, read):
    strike(10, signal.SIGTERM)
    assert door(*TINY, "energy.enabled=false", "out=run").status == 143
    config = Path("run/config.yaml")
    text = config.read_text()
    assert text.count("callbacks: []\n") == 1
    config.write_text(text.replace("callbacks: []\n", ""))
    assert resumed("run", [])[0].callbacks == BEFORE["callbacks"] == []
    assert run.main(["resume=run"]) == 0
    assert read.record("run")["config"]["callbacks"] == []
