"""A card whose driver goes away, or whose counter begins anew, in the middle of a run: the run ends as without it."""

import importlib
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from localearn.cli import compare
from localearn.cli.errors import run_command
from localearn.energy import Meter, metered_by
from localearn.energy.nvml import NvmlCounter
from localearn.reporting import read_runs, write_report
from localearn.testing.energy import FakeCard, FakeClock, FakeNvml, Script
from localearn.training.callbacks import Callback, Context, attached

# 60 rows in batches of 16 are 4 steps an epoch; each takes 1 s and each evaluation 0.5 s, at 300 W.
TINY = ("dataset.train_size=60", "net.widths=[12,10]", "batch_size=16", "epochs=3", "progress=false")
POWER_W, STEP_S, EVALUATION_S = 300.0, 1.0, 0.5
STEPS, EVALUATIONS = 12, 5


@dataclass
class Machine:
    """A card that trains, and what happens to it: `at` gives an action by the number of the step that it follows."""

    clock: FakeClock = field(default_factory=FakeClock)
    at: dict[int, Callable[[], None]] = field(default_factory=dict)
    steps: int = 0

    def __post_init__(self) -> None:
        self.card = FakeCard("GPU-0", Script([(0.0, POWER_W)]))
        self.nvml = FakeNvml(self.clock, self.card)

    def lose(self) -> None:
        self.nvml.lost = True

    def miss_a_reading(self) -> None:
        """Have the driver go away until its counter has been asked for once more."""
        name = "nvmlDeviceGetTotalEnergyConsumption"
        self.nvml.failing[name] = [self.nvml.calls[name] + 1]

    def reset(self) -> None:
        self.card.reset_s = self.clock.now_s

    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class TakingTime(Callback):
    """Has the clock of a machine move by each step and evaluation, and what shall happen after a step happen."""

    def __init__(self, machine: Machine):
        self.machine = machine

    def run_started(self, context: Context) -> None:
        def evaluated(block: torch.nn.Module, _: Any) -> None:
            if not block.training:  # the rows of a split are a batch
                self.machine.clock.advance(EVALUATION_S)

        context.net.block(0).register_forward_pre_hook(evaluated)

    def step_ended(self, context: Context) -> None:
        self.machine.clock.advance(STEP_S)
        self.machine.steps += 1
        self.machine.at.get(self.machine.steps, lambda: None)()


@pytest.fixture
def machine():
    """Have runs metered on a scripted card, whose clock moves as they train and evaluate."""
    made = Machine()

    def on_the_card(device: torch.device, country: str | None, sources: Any, idle_s: float) -> Meter:
        counters = [NvmlCounter("GPU-0", nvml=made.nvml, clock=made.clock.clock)]
        found = counters if sources == "auto" else sources
        # A device that is no CPU makes the card the headline; here nothing runs on it.
        return Meter("mps", country, found, idle_s, clock=made.clock.clock, synchronize=lambda: None)

    with metered_by(on_the_card), attached(TakingTime(made)):
        yield made


@pytest.fixture
def run(machine, door, read, caplog):
    """Run with energy and return its record, how it ended, and the warnings of the meter."""

    def enter(*arguments: str, out: str = "run") -> tuple[dict[str, Any], list[str]]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="localearn.energy"):
            door(*arguments)
        return read.record(out), [r.getMessage() for r in caplog.records if r.name.startswith("localearn.energy")]

    return enter


def assert_unknown(energy: dict[str, Any], flag: str) -> None:
    """The training's joules are null, not a part of their sum; its seconds, source and flag stand."""
    assert (energy["train_j"], energy["train_net_j"], energy["train_uncertainty_j"]) == (None, None, None)
    assert energy["parts"]["gpu"]["windows"]["train"]["energy_j"] is None
    assert (energy["label"], energy["source"], energy["part"]) == ("measured", "nvml", "gpu")
    assert energy["flags"] == [flag]
    assert energy["durations_s"]["train"] == pytest.approx(STEPS * STEP_S)
    assert energy["durations_s"]["eval"] == pytest.approx(EVALUATIONS * EVALUATION_S)


@pytest.fixture
def whole(door, read):
    """Give the net and the history of the same run without energy."""
    assert door(*TINY, "energy.enabled=false", "out=whole").status == 0
    return read.net("whole"), read.timeless(read.history("whole"))


ENERGY = ("energy.idle_s=1", "energy.country=POL")


def test_nothing_lost_nothing_said(machine, run, read):
    record, said = run(*TINY, *ENERGY, "out=run")
    assert record["energy"]["train_j"] == pytest.approx(STEPS * STEP_S * POWER_W, rel=0.01)
    assert record["co2e_kg"] > 0
    assert (record["energy"]["flags"], said) == ([], [])
    assert [line["train_j"] for line in read.history("run")] == pytest.approx([1200.0, 2400.0, 3600.0], rel=0.01)


def test_a_driver_that_goes_away_costs_the_joules_and_nothing_else(whole, machine, run, read):
    machine.at[machine.steps + 6] = machine.lose
    record, said = run(*TINY, *ENERGY, "out=run")
    assert record["status"] == "completed"
    assert (read.net("run"), read.timeless(read.history("run"))) == whole
    assert_unknown(record["energy"], "source_lost")
    joules = [line["train_j"] for line in read.history("run")]
    assert joules == [pytest.approx(1200.0, rel=0.01), None, None]  # the first epoch's were whole
    assert record["train_s"] == pytest.approx(STEPS * STEP_S)
    assert (record["co2e_kg"], record["co2e"]["label"]) == (None, "absent")
    assert record["energy"]["parts"]["gpu"]["idle_w"] == {"before": pytest.approx(POWER_W, rel=0.02), "after": None}
    (line,) = said
    assert line.startswith("gpu energy: the source did not answer (GPU is lost) in a train window")
    assert "the run goes on" in line


def test_windows_after_the_driver_came_back_are_counted(whole, machine, run, read):
    """The one lost reading is that at the end of the second epoch's steps; its evaluation comes after it."""
    machine.at[machine.steps + 8] = machine.miss_a_reading
    record, said = run(*TINY, *ENERGY, "out=run")
    assert read.net("run") == whole[0]
    assert_unknown(record["energy"], "source_lost")
    evaluation = record["energy"]["parts"]["gpu"]["windows"]["eval"]
    assert evaluation["energy_j"] == pytest.approx(EVALUATIONS * EVALUATION_S * POWER_W, rel=0.05)
    assert "source_lost" not in evaluation["flags"]
    assert record["energy"]["parts"]["gpu"]["windows"]["train"]["discarded"] == 1
    assert len(said) == 1


def test_a_counter_that_begins_anew_costs_the_joules_and_nothing_else(whole, machine, run, read):
    machine.at[machine.steps + 6] = machine.reset
    record, said = run(*TINY, *ENERGY, "out=run")
    assert (read.net("run"), read.timeless(read.history("run"))) == whole
    assert_unknown(record["energy"], "counter_reset")
    assert record["energy"]["parts"]["gpu"]["windows"]["eval"]["energy_j"] == pytest.approx(750.0, rel=0.05)
    (line,) = said
    assert line.startswith("gpu energy: the counter was reset in a train window")


@pytest.mark.parametrize("stopped_after", [2, 7])
def test_a_resumed_run_keeps_what_was_lost_before_and_after(whole, machine, run, read, stopped_after: int):
    """Lost after step 6, stopped before or after that; the driver is back for the resumed run that lost it before."""
    machine.at[machine.steps + 6] = machine.lose
    machine.at[machine.steps + stopped_after] = machine.stop
    first, _ = run(*TINY, *ENERGY, "out=run")
    assert first["status"] == "interrupted"
    assert (first["energy"]["train_j"] is None) == (stopped_after == 7)
    if stopped_after == 7:
        machine.nvml.lost = False
    record, said = run("resume=run", "progress=false")
    assert record["status"] == "completed"
    assert (read.net("run"), read.timeless(read.history("run"))) == whole
    assert_unknown(record["energy"], "source_lost")
    (seam,) = record["energy"]["seams"]
    assert seam["earlier_train_j"] == (None if stopped_after == 7 else pytest.approx(600.0, rel=0.05))
    assert len(said) == (0 if stopped_after == 7 else 1)


def test_a_resumed_run_without_the_driver_has_no_joules_at_all(whole, machine, run, read):
    machine.at[machine.steps + 6] = machine.stop
    run(*TINY, *ENERGY, "out=run")
    machine.nvml.lost = True
    record, said = run("resume=run", "progress=false")
    assert read.net("run") == whole[0]
    energy = record["energy"]
    assert (energy["train_j"], energy["label"], energy["part"]) == (None, "absent", None)
    assert energy["durations_s"]["train"] == pytest.approx(STEPS * STEP_S)
    assert energy["seams"][0]["earlier_train_j"] == pytest.approx(6 * STEP_S * POWER_W, rel=0.05)
    (line,) = said
    assert line.startswith("GPU energy is absent: NVML")


def test_the_report_shows_the_flag_and_no_ratio_of_such_joules(machine, run):
    run(*TINY, *ENERGY, "algo=backprop", "out=runs/backprop", out="runs/backprop")
    machine.at[machine.steps + 6] = machine.lose
    record, _ = run(*TINY, *ENERGY, "algo=mono_forward", "out=runs/mono_forward", out="runs/mono_forward")
    assert record["energy"]["train_j"] is None
    write_report(read_runs(["runs"]), "report")
    page, data = Path("report/report.md").read_text(), json.loads(Path("report/report.json").read_text())
    rules = {rule["algo"]: rule for group in data["groups"] for rule in group["rules"]}
    lost = rules["mono_forward"]
    joules = {name: measure for name, measure in lost["measures"].items() if measure["unit"] == "J"}
    assert set(joules) == {"train_j", "train_net_j", "j_per_sample", "common_accuracy_j"}
    for measure in joules.values():
        assert measure["to_baseline"] is None
        assert measure["values"] == [{"mean": None, "label": "absent"}]
        assert measure["flags"] == {"source_lost": 1}
    assert lost["measures"]["train_s"]["to_baseline"]["mean"] == pytest.approx(1.0)
    assert rules["backprop"]["measures"]["train_j"]["values"][0]["mean"] == pytest.approx(3600.0, rel=0.01)
    assert "⚑ source_lost (1 of 1)" in page
    assert "⚑ source_lost: the source, such as the card's driver, did not answer" in page
    (curve,) = [line for line in page.splitlines() if line.startswith("![Validation accuracy over measured joules")]
    assert "mono_forward" not in curve
    assert "energy ×" not in page


class NothingTrains(Callback):
    """Fails a test in which a run is started."""

    def run_started(self, context: Context) -> None:
        pytest.fail("trained")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("run", ["out=lost"]),
        ("compare", ["algos=[backprop,mono_forward]", "seeds=[0,1,2]", "out=lost"]),
        ("compare", ["algos=[backprop,mono_forward]", "seeds=[0,1,2]", "out=lost", "warm_up=false"]),
        ("tune", ["algo=mono_forward", "trials=1", "out=lost"]),
    ],
)
@pytest.mark.parametrize(("country", "near"), [("XXX", "'MEX' (Mexico)"), ("GER", "'DEU' (Germany)")])
def test_an_unknown_country_is_told_at_every_door_before_anything_is_trained(
    tmp_path, monkeypatch, capsys, module: str, arguments: list[str], country: str, near: str
):
    monkeypatch.chdir(tmp_path)
    door = importlib.import_module(f"localearn.{module}")
    with attached(NothingTrains()):
        assert run_command(door.main, [*arguments, "dataset.train_size=60", f"energy.country={country}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: energy.country='{country}' is no country code")
    assert near in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_country_of_one_rule_is_told_before_the_others_are_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["algos=[backprop,mono_forward]", "seeds=[0,1,2]", "out=lost", "mono_forward:energy.country=XXX"]
    with attached(NothingTrains()):
        assert run_command(compare.main, arguments) == 2
    assert "energy.country='XXX'" in capsys.readouterr().err
