"""Training from Python: what it writes, what it does not, and what it does when it is stopped or full."""

import contextlib
import functools
import os
import signal
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import localearn
from localearn.energy import Meter
from localearn.errors import UserError
from localearn.testing.energy import FakeClock, FakeCounter
from localearn.trainers.phases import completed
from localearn.training import fit
from localearn.training.callbacks import Context, attached
from localearn.training.distributed import Ranks
from localearn.training.fit import open_meter


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=60)


def trainer_for(data: localearn.Data) -> localearn.Trainer:
    torch.manual_seed(0)
    return localearn.MonoForward(localearn.MLP(data.input_shape, data.classes, widths=[12, 10]))


def test_without_a_folder_nothing_is_written(digits, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    record = trainer_for(digits).fit(digits, epochs=2, batch_size=16)
    assert record.status == "completed"
    assert len(record.history) == 2
    assert record.energy["label"] == "absent"
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_without_a_folder_is_a_keyboard_interrupt(digits, strike):
    strike(2, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer_for(digits).fit(digits, epochs=2, batch_size=16)


def test_ctrl_c_with_a_folder_gives_a_record_to_go_on_with(digits, tmp_path, strike):
    whole = trainer_for(digits)
    whole.fit(digits, epochs=2, batch_size=16)
    strike(2, signal.SIGINT)
    out = tmp_path / "run"
    assert trainer_for(digits).fit(digits, epochs=2, batch_size=16, out=out).status == "interrupted"
    again = trainer_for(digits)
    assert again.fit(digits, epochs=2, batch_size=16, out=out, resume=True).status == "completed"
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_resuming_needs_a_folder(digits):
    with pytest.raises(UserError, match="resume=True needs out="):
        fit(trainer_for(digits), digits, resume=True)


def test_a_net_for_other_data_is_told_before_anything_is_written(digits, tmp_path):
    other = localearn.Backprop(localearn.MLP((3, 4, 4), 10, widths=[8]))
    with pytest.raises(localearn.Unsupported, match="takes rows of shape"):
        other.fit(digits, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_handlers_are_put_back(signum, digits):
    before = signal.getsignal(signum)
    trainer_for(digits).fit(digits, epochs=1)
    assert signal.getsignal(signum) is before


class FullDisk(localearn.Callback):
    """Has the writing of files of a run fail as on a full disk, from the end of an epoch on.

    A file is written under a temporary name first, and that stands here for /dev/full already.
    """

    def __init__(self, epoch: int, *files: str) -> None:
        self.epoch, self.files = epoch, files

    def epoch_ended(self, context: Context) -> None:
        if context.folder and context.position.epoch == self.epoch:
            for name in self.files:
                (context.folder / f".{name}.{os.getpid()}.tmp").symlink_to("/dev/full")


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no /dev/full")


@needs_dev_full
@pytest.mark.parametrize("for_good", [False, True])
def test_a_full_disk_costs_an_epoch_at_most(for_good, tiny, door, read):
    assert tiny("out=whole").status == 0
    with attached(FullDisk(2, "checkpoint.pt", *(["run.json"] if for_good else []))):
        ended = tiny("out=run")
    assert ended.status == 2
    assert ended.err.startswith("error: cannot write run/checkpoint.pt: No space left on device; the last checkpoint")
    assert "resume=run" in ended.err
    assert len(ended.err.splitlines()) <= 2
    assert Path("run/run.json").exists() != for_good, "the record is kept where there is room for it"
    if not for_good:
        assert read.record("run")["status"] == "failed"
        assert "No space left" in read.record("run")["error"]
    assert not list(Path("run").glob(".*")), "nothing half-written stays"
    assert door("resume=run").status == 0
    assert read.net("run") == read.net("whole")


@needs_dev_full
def test_a_full_disk_at_the_very_end_is_no_completed_run(tiny, door, read):
    with attached(FullDisk(1, "net.safetensors")):
        assert tiny("out=run").status == 2
    assert read.record("run")["status"] == "failed"
    assert door("resume=run").status == 0
    assert read.record("run")["status"] == "completed"


@pytest.mark.parametrize("rule", [localearn.MonoForward, localearn.ForwardForward, localearn.Backprop])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_callers_grad_mode_changes_nothing(rule, mode):
    data = localearn.load("digits", train_size=60)

    def weights(inside):
        torch.manual_seed(0)
        trainer = rule(localearn.MLP(data.input_shape, data.classes, widths=(8, 8)))
        with inside():
            fit(trainer, data, epochs=1)
        return trainer.state_dict()

    alone = weights(contextlib.nullcontext)
    assert all(torch.equal(value, alone[name]) for name, value in weights(mode).items())


def test_a_net_built_in_inference_mode_is_refused(digits):
    with torch.inference_mode():
        trainer = trainer_for(digits)
    with pytest.raises(UserError, match="built in inference_mode"):
        fit(trainer, digits)


def tied_net(data: localearn.Data) -> localearn.Net:
    torch.manual_seed(0)
    first, second, third = nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 12)
    third.weight = second.weight
    layers = [nn.Flatten(), first, nn.Tanh(), second, nn.Tanh(), third, nn.Tanh(), nn.Linear(12, data.classes)]
    return localearn.Net.from_sequential(nn.Sequential(*layers), data.input_shape)


@pytest.mark.parametrize("rule", [localearn.Backprop, localearn.MonoForward, localearn.Pepita])
def test_a_net_with_tied_weights_is_trained_and_saved(digits, rule, tmp_path):
    net = tied_net(digits)
    assert fit(rule(net), digits, epochs=1, out=tmp_path / "run").status == "completed"
    again = tied_net(digits)
    again.load_state_dict(load_file(tmp_path / "run" / "net.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(net.parameters(), tied_net(digits).parameters(), strict=True))


def test_a_schedule_that_is_shorter_than_the_run_is_told_before_it(digits, tmp_path):
    short = functools.partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=2)
    trainer, out = trainer_for(digits), tmp_path / "run"
    before = {name: value.clone() for name, value in trainer.state_dict().items()}
    with pytest.raises(UserError, match="in epoch 3 of 4"):
        fit(trainer, digits, epochs=4, schedule=short, out=out)
    assert not out.exists()
    assert all(torch.equal(value, before[name]) for name, value in trainer.state_dict().items())
    assert fit(trainer, digits, epochs=2, schedule=short, out=out).status == "completed"


@pytest.mark.parametrize(("rank", "told"), [(0, ["GPU energy is absent: a", "GPU energy is absent: b"]), (1, [])])
def test_absent_energy_is_told_once_and_by_the_first_rank(caplog, rank, told):
    class OneOfFour(Ranks):
        """The first or the second of four."""

        size = 4

        def __init__(self):
            self.rank = rank

        def all_gather_object(self, value):
            return [value, "GPU energy is absent: a", "GPU energy is absent: b", None]

    clock = FakeClock()
    source = FakeCounter(clock, "gpu", absent="a")
    open_meter(Meter("cuda", sources=[source], clock=clock.clock, synchronize=lambda: None), OneOfFour())
    assert [record.message for record in caplog.records] == told


class _Told(localearn.Backprop):
    told: ClassVar[dict[str, float]] = {}

    def gradients(self, batch):
        return {**completed(super().gradients(batch)), **{k: torch.tensor(v) for k, v in self.told.items()}}


class _NoPhase(localearn.Backprop):
    def phases(self):
        return []


class _NoMetrics(localearn.Backprop):
    def gradients(self, batch):
        super().gradients(batch)


class _NoGradient(localearn.Backprop):
    def gradients(self, batch):
        return {"loss": torch.ones(())}


@pytest.mark.parametrize("step", ["all", "block"])
def test_a_rule_that_fills_no_gradient_is_told(step):
    data = localearn.load("digits", train_size=40)
    rule = _NoGradient(localearn.MLP(data.input_shape, 10, widths=(8,)))
    with pytest.raises(UserError, match=r"_NoGradient's gradients\(\) fills no .grad of phase 'all'"):
        rule.fit(data, epochs=1, step=step)


@pytest.mark.parametrize(("rule", "told", "match"), [
    (_Told, {"val_accuracy": 5.0, "lr": -7.0}, "returns lr, val_accuracy, which the loop measures"),
    (_NoPhase, {}, r"_NoPhase.phases\(\) returns none"),
    (_NoMetrics, {}, "returns a dict of detached scalars, .* this one returns NoneType"),
])  # fmt: skip
def test_a_rule_that_says_too_much_or_nothing_is_told(rule, told, match):
    data = localearn.load("digits", train_size=40)
    _Told.told = told
    with pytest.raises(UserError, match=match):
        rule(localearn.MLP(data.input_shape, 10, widths=(8,))).fit(data, epochs=1)
