"""The meter on scripted sources: windows, what goes wrong in them, sums over sessions and processes, the record."""

import doctest
import itertools
import json
import logging
import os
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import localearn.energy.meter
from localearn.energy import Meter
from localearn.energy.codecarbon import CpuEstimate, ProcessModel
from localearn.energy.nvml import NvmlCounter
from localearn.energy.rapl import RaplCounter
from localearn.errors import UserError
from localearn.testing.energy import FakeCard, FakeClock, FakeCounter, FakeNvml, Script

IDLE_THEN_BUSY = Script([(0.0, 60.0), (1.0, 60.0), (1.0001, 300.0)])


def nothing() -> None:
    """Wait for a device on which nothing runs; one that is no CPU makes the card the headline."""


def card_meter(clock: FakeClock, card: FakeCard, synchronize: Callable[[], None] = nothing, **kwargs: Any) -> Meter:
    """Return an open meter on a scripted card, as a run on a GPU has it, and an estimated CPU beside it."""
    counter = NvmlCounter(card.uuid, nvml=FakeNvml(clock, card), clock=clock.clock)
    sources = [counter, FakeCounter(clock)]
    meter = Meter("mps", sources=sources, clock=clock.clock, synchronize=synchronize, **kwargs)
    meter.open()
    return meter


def test_joules_seconds_and_idle_power_of_a_run():
    clock = FakeClock()
    meter = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY))
    for _ in range(2):
        with meter.window("train"):
            clock.advance(5.0)
    with meter.window("eval"):
        clock.advance(1.0)
    meter.close()
    energy = meter.report()["energy"]
    assert energy["train_j"] == pytest.approx(3000.0, rel=0.005)
    assert (energy["label"], energy["source"], energy["part"]) == ("measured", "nvml", "gpu")
    assert energy["durations_s"] == pytest.approx({"train": 10.0, "eval": 1.0})
    idle = energy["parts"]["gpu"]["idle_w"]
    assert idle == pytest.approx({"before": 60.0, "after": 300.0}, rel=0.01)
    assert energy["train_net_j"] == pytest.approx(energy["train_j"] - 180.0 * 10.0, rel=0.01)
    assert energy["train_uncertainty_j"] == pytest.approx(300.0 * 0.02 * 2, rel=0.05)
    assert energy["flags"] == []
    assert energy["conditions"]["card"] == "Fake card"
    assert meter.energy_j("train") == energy["train_j"]
    assert meter.duration_s("train") == pytest.approx(10.0)
    assert meter.duration_s("tune") == 0.0


def test_as_a_context_it_is_open_inside_and_closed_after_an_exception_too():
    clock = FakeClock()
    counter = FakeCounter(clock)
    with pytest.raises(KeyError), Meter("cpu", sources=[counter], clock=clock.clock) as meter, meter.window("train"):
        clock.advance(2.0)
        raise KeyError
    assert meter.duration_s("train") == pytest.approx(2.0)
    with pytest.raises(RuntimeError, match="closed"), meter.window("train"):
        pass


def test_sources_that_were_opened_are_closed_where_another_cannot_be():
    clock = FakeClock()
    opened, broken = FakeCounter(clock, "cpu"), FakeCounter(clock, "dram", error=OSError("no bus"))
    meter = Meter("cpu", sources=[opened, broken], clock=clock.clock)
    with pytest.raises(OSError, match="no bus"):
        meter.open()
    assert opened.closed == 1
    with pytest.raises(RuntimeError, match="closed, not open"), meter.window("train"):
        pass


@pytest.mark.slow
def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(localearn.energy.meter) == doctest.TestResults(failed=0, attempted=10)


def test_the_device_is_synchronised_before_both_readings():
    """What it is still at is waited for, and its energy and its seconds are those of the window it was given in."""
    clock = FakeClock()
    left_s = [0.0]
    waits = []

    def synchronize() -> None:
        waits.append(clock.now_s)
        clock.advance(left_s.pop() if left_s else 0.0)

    meter = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY), synchronize, idle_s=0.0)
    waits.clear()
    left_s.append(2.0)  # of work before the window
    with meter.window("train"):
        assert len(waits) == 1
        left_s.append(5.0)  # of the window's own
    assert len(waits) == 2
    assert meter.duration_s("train") == pytest.approx(5.0)
    assert meter.energy_j("train") == pytest.approx(1500.0, rel=0.01)


def test_a_short_window_is_flagged_where_it_stands():
    clock = FakeClock()
    meter = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY))
    with meter.window("eval"):
        clock.advance(0.1)
    with meter.window("train"):
        clock.advance(10.0)
    parts = meter.report()["energy"]["parts"]
    assert parts["gpu"]["windows"]["eval"]["flags"] == ["too_short"]
    assert parts["gpu"]["windows"]["eval"]["uncertainty_j"] > 0
    assert parts["cpu"]["windows"]["eval"]["flags"] == []
    assert meter.report()["energy"]["flags"] == []


def test_a_reset_discards_the_window_and_training_goes_on():
    clock = FakeClock()
    meter = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY, reset_s=8.0))
    for name in ("train", "eval", "train", "tune"):
        with meter.window(name):
            clock.advance(5.0)
    energy = meter.report()["energy"]
    windows = energy["parts"]["gpu"]["windows"]
    assert windows["eval"]["energy_j"] is None
    assert windows["eval"]["flags"] == ["counter_reset"]
    assert windows["train"]["energy_j"] == pytest.approx(3000.0, rel=0.005)
    assert windows["tune"]["energy_j"] == pytest.approx(1500.0, rel=0.005)


def test_a_lost_source_marks_the_window_and_keeps_its_seconds():
    clock = FakeClock()
    steady = FakeCounter(clock)
    meter = Meter(sources=[steady], clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(2.0)
    with meter.window("train"):
        clock.advance(2.0)
        steady.lost = True
    meter.close()
    energy = meter.report()["energy"]
    assert energy["train_j"] is None
    assert energy["flags"] == ["source_lost"]
    assert energy["label"] == "estimated"
    assert energy["durations_s"] == {"train": 4.0}


def test_without_time_for_it_idle_power_is_not_known():
    """Not the jump of the counter between two readings a microsecond apart."""
    clock = FakeClock()
    meter = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY), idle_s=0.0)
    with meter.window("train"):
        clock.advance(10.0)
    meter.close()
    energy = meter.report()["energy"]
    assert energy["parts"]["gpu"]["idle_w"] is None
    assert energy["train_net_j"] is None
    assert energy["train_j"] > 0


def test_throttling_and_other_processes_are_flagged_in_the_window_they_met():
    clock = FakeClock()
    card = FakeCard("GPU-a", IDLE_THEN_BUSY)
    meter = card_meter(clock, card)
    with meter.window("eval"):
        clock.advance(5.0)
    card.throttle_bits, card.pids = 0x40, [-1, -2]
    with meter.window("train"):
        clock.advance(5.0)
    energy = meter.report()["energy"]
    assert energy["flags"] == ["foreign_process", "throttled"]
    assert energy["parts"]["gpu"]["windows"]["eval"]["flags"] == []
    assert energy["conditions"]["throttle_reasons"] == ["hardware_thermal"]


def test_an_exception_ends_the_window_and_goes_on():
    clock = FakeClock()
    meter = Meter(sources=[FakeCounter(clock)], clock=clock.clock)
    meter.open()
    with pytest.raises(ZeroDivisionError), meter.window("train"):
        clock.advance(3.0)
        raise ZeroDivisionError
    with meter.window("train"):
        clock.advance(1.0)
    assert meter.energy_j("train") == pytest.approx(40.0)


def test_a_device_that_fails_at_the_end_still_ends_the_window():
    clock = FakeClock()
    errors = []

    def synchronize() -> None:
        if errors:
            raise errors.pop()

    meter = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY), synchronize)
    with pytest.raises(RuntimeError, match="device-side assert"), meter.window("train"):
        clock.advance(5.0)
        errors.append(RuntimeError("device-side assert"))
    assert meter.energy_j("train") == pytest.approx(1500.0, rel=0.01)
    meter.close()


def test_windows_that_make_no_sense_are_refused():
    meter = Meter(sources="none")
    with pytest.raises(RuntimeError, match="new, not open"), meter.window("train"):
        pass
    meter.open()
    with pytest.raises(RuntimeError, match="opened once"):
        meter.open()
    with pytest.raises(ValueError, match=r"'trian'.*train"), meter.window("trian"):
        pass
    with meter.window("train"), pytest.raises(RuntimeError, match="'eval' inside window 'train'"), meter.window("eval"):
        pass
    meter.close()
    meter.close()
    with pytest.raises(RuntimeError, match="closed, not open"), meter.window("train"):
        pass


def test_closing_stops_the_sources_once_and_a_new_meter_closes_too():
    clock = FakeClock()
    steady = FakeCounter(clock)
    meter = Meter(sources=[steady], clock=clock.clock)
    meter.open()
    meter.close()
    meter.close()
    assert steady.closed == 1
    Meter(sources="none").close()


def test_the_sources_are_told_in_a_line():
    clock = FakeClock()
    meter = Meter(sources=[FakeCounter(clock), FakeCounter(clock, "dram", absent="no counter here")], clock=clock.clock)
    meter.open()
    assert meter.describe() == "gpu absent (not measured); cpu estimated by fake; dram absent (no counter here)"


class SlowModel:
    """CodeCarbon's model of a CPU of 4 W, which takes until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def load(self) -> tuple[Any, Any, str]:
        assert self.go.wait(30)
        cpu = SimpleNamespace(_tdp=4.0, _cpu_count=1, get_model=lambda: "a processor")
        return cpu, SimpleNamespace(total_power=lambda: SimpleNamespace(W=5.0)), "3.0"


def test_a_meter_that_measured_nothing_closes_without_waiting():
    """Had it waited for a model that does not come in time, the part would be absent."""
    slow = SlowModel()
    meter = Meter(sources=[CpuEstimate(ProcessModel(slow.load, start_limit_s=0.0))])
    meter.open()
    meter.close()
    assert "cpu estimated by codecarbon" in meter.describe()
    slow.go.set()


def test_a_source_that_fails_late_leaves_the_part_absent():
    clock = FakeClock()
    meter = Meter(sources=[FakeCounter(clock, fails_when_ready=True)], clock=clock.clock)
    meter.open()
    with meter.window("setup"):
        clock.advance(1.0)
    with meter.window("train"):
        clock.advance(1.0)
    meter.close()
    energy = meter.report()["energy"]
    assert energy["label"] == "absent"
    assert energy["parts"]["cpu"]["note"] == "came to nothing"
    assert energy["train_j"] is None


def test_setup_does_not_wait_for_a_slow_source_and_is_counted_all_the_same():
    slow = SlowModel()
    meter = Meter(sources=[CpuEstimate(ProcessModel(slow.load))])
    meter.open()
    with meter.window("setup"):
        sum(range(100_000))
        assert not slow.go.is_set()
    slow.go.set()
    with meter.window("train"):
        assert "4 W for 1 logical CPUs (a processor)" in meter.report()["energy"]["parts"]["cpu"]["note"]
    setup = meter.report()["energy"]["parts"]["cpu"]["windows"]["setup"]
    assert setup["energy_j"] > 0
    assert setup["net_j"] is None


def test_a_card_without_a_driver_is_said_once(caplog: pytest.LogCaptureFixture):
    def metered() -> Meter:
        clock = FakeClock()
        sources = [NvmlCounter("a", nvml=FakeNvml(clock, driver=False), clock=clock.clock), FakeCounter(clock)]
        return Meter("cuda:0", sources=sources, clock=clock.clock, synchronize=nothing)

    with caplog.at_level(logging.WARNING):
        meter = metered()
        meter.open()
    assert [record.message for record in caplog.records] == [
        "GPU energy is absent: NVML: NVML Shared Library Not Found"
    ]
    assert meter.absence == "GPU energy is absent: NVML: NVML Shared Library Not Found"
    caplog.clear()
    quiet = metered()
    quiet.open(warn=False)
    assert quiet.absence == meter.absence and not caplog.records


def test_without_sources_only_seconds_are_kept():
    clock = FakeClock()
    meter = Meter(sources="none", country="POL", clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(2.0)
    meter.close()
    report = meter.report()
    energy = report["energy"]
    assert energy["train_j"] is energy["train_net_j"] is energy["source"] is energy["part"] is None
    assert {part["label"] for part in energy["parts"].values()} == {"absent"}
    assert energy["parts"]["cpu"]["windows"]["train"]["energy_j"] is None
    assert energy["durations_s"] == {"train": 2.0}
    assert report["co2e_kg"] is None
    assert report["co2e"]["label"] == "absent"


def test_parts_are_never_added_to_each_other():
    clock = FakeClock()
    sources = [FakeCounter(clock, "cpu", "measured", 50.0), FakeCounter(clock, "dram", "estimated", 10.0)]
    meter = Meter(sources=sources, clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(2.0)
    energy = meter.report()["energy"]
    assert energy["train_j"] == pytest.approx(100.0)
    assert energy["label"] == "measured"
    assert energy["parts"]["dram"]["windows"]["train"]["energy_j"] == pytest.approx(20.0)
    assert energy["parts"]["gpu"]["windows"]["train"]["energy_j"] is None


def test_the_next_source_stands_in_and_the_note_says_why():
    clock = FakeClock()
    sources = [FakeCounter(clock, "cpu", "measured", absent="no counter here"), FakeCounter(clock, "cpu", "estimated")]
    meter = Meter(sources=sources, clock=clock.clock)
    meter.open()
    cpu = meter.report()["energy"]["parts"]["cpu"]
    assert cpu["label"] == "estimated"
    assert cpu["note"] == "steady; no counter here"


def test_a_resumed_run_adds_what_went_before():
    clock = FakeClock()
    first = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY))
    with first.window("train"):
        clock.advance(10.0)
    state = json.loads(json.dumps(first.state()))
    second_clock = FakeClock()
    second = card_meter(second_clock, FakeCard("GPU-a", IDLE_THEN_BUSY))
    second.add_earlier(state)
    with second.window("train"):
        second_clock.advance(5.0)
    energy = second.report()["energy"]
    assert energy["train_j"] == pytest.approx(4500.0, rel=0.005)
    assert second.energy_j("train") == energy["train_j"]
    assert second.duration_s("train") == pytest.approx(15.0)
    assert energy["train_net_j"] == pytest.approx(4500.0 - 60.0 * 15.0, rel=0.01)
    (seam,) = energy["seams"]
    assert seam["earlier_s"] == pytest.approx({"train": 10.0})
    assert seam["earlier_train_j"] == pytest.approx(3000.0, rel=0.005)
    third = card_meter(FakeClock(), FakeCard("GPU-a", IDLE_THEN_BUSY))
    third.add_earlier(second.state())
    assert third.report()["energy"]["train_j"] == energy["train_j"]
    assert len(third.report()["energy"]["seams"]) == 2


@pytest.mark.parametrize("labels", [("measured", "estimated"), ("estimated", None), (None, "estimated")])
def test_a_resumed_run_never_adds_joules_of_another_label(labels: tuple[Any, Any]):
    clock = FakeClock()
    meters = []
    for label in labels:
        sources = [FakeCounter(clock, label=label)] if label else "none"
        meter = Meter(sources=sources, clock=clock.clock)
        meter.open()
        if meters:
            meter.add_earlier(meters[0].state())
        with meter.window("train"):
            clock.advance(2.0)
        meters.append(meter)
    energy = meters[1].report()["energy"]
    assert energy["train_j"] is None
    assert energy["durations_s"] == {"train": 4.0}
    assert energy["flags"] == (["label_changed"] if labels[1] else [])


def test_a_checkpoint_takes_the_state(tmp_path):
    clock = FakeClock()
    meter = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY))
    with meter.window("train"):
        clock.advance(2.0)
    torch.save({"energy": meter.state()}, tmp_path / "checkpoint")
    assert torch.load(tmp_path / "checkpoint", weights_only=True)["energy"] == meter.state()


def test_carbon_is_an_estimate_of_the_training_alone():
    clock = FakeClock()
    meter = Meter(country="pol", sources=[FakeCounter(clock, label="measured", power_w=3600.0)], clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(1000.0)
    with meter.window("eval"):
        clock.advance(500.0)
    report = meter.report()
    assert report["co2e"]["label"] == "estimated"
    assert report["co2e"]["country"] == "POL"
    assert report["co2e_kg"] == pytest.approx(report["co2e"]["intensity_kg_per_kwh"])


def test_no_country_no_carbon_and_the_way_to_it():
    clock = FakeClock()
    meter = Meter(sources=[FakeCounter(clock)], clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(1.0)
    report = meter.report()
    assert report["energy"]["train_j"] == pytest.approx(10.0)
    assert report["co2e_kg"] is None
    assert "energy.country=POL" in report["co2e"]["note"]


def test_a_wrong_country_fails_before_anything_runs():
    with pytest.raises(UserError, match="did you mean 'POL'"):
        Meter(country="POLAND")


def test_the_report_is_json_and_of_the_agreed_form():
    """A machine as it is: what is measured differs between machines, the form of the record does not."""
    meter = Meter("cpu", country="POL", idle_s=0.05)
    meter.open()
    with meter.window("setup"):
        pass
    with meter.window("train"):
        sum(range(300_000))
    meter.close()
    report = json.loads(json.dumps(meter.report(), allow_nan=False))
    assert set(report) == {"energy", "co2e_kg", "co2e"}
    assert set(report["co2e"]) == {"label", "country", "intensity_kg_per_kwh", "note"}
    energy = report["energy"]
    assert set(energy) == {
        "train_j",
        "train_net_j",
        "source",
        "label",
        "part",
        "train_uncertainty_j",
        "parts",
        "durations_s",
        "flags",
        "seams",
        "conditions",
    }
    assert set(energy["durations_s"]) == {"setup", "train"}
    assert set(energy["parts"]) == {"gpu", "cpu", "dram"}
    for part in energy["parts"].values():
        assert set(part) == {"label", "source", "note", "idle_w", "windows"}
        assert set(part["windows"]) == {"setup", "train"}
        for window in part["windows"].values():
            assert {"energy_j", "net_j", "duration_s", "uncertainty_j", "flags"} <= set(window)
            assert (window["energy_j"] is None) == (part["label"] == "absent")
    assert energy["parts"]["gpu"]["label"] == "absent"
    assert energy["label"] in ("measured", "estimated")
    assert energy["train_j"] > 0
    assert report["co2e_kg"] > 0


class Process:
    """A rank's meter: a card, or a machine's CPU, and its own clock."""

    def __init__(self, *counters, clock=None, device="mps"):
        self.clock = clock or FakeClock()
        sources = [counter(self.clock) for counter in counters]
        self.meter = Meter(device, sources=sources, clock=self.clock.clock, synchronize=lambda: None)
        self.meter.open()

    def train(self, seconds):
        with self.meter.window("train"):
            self.clock.advance(seconds)

    @property
    def state(self):
        return json.loads(json.dumps(self.meter.state()))


def card(uuid):
    return lambda clock: NvmlCounter(uuid, nvml=FakeNvml(clock, FakeCard(uuid, IDLE_THEN_BUSY)), clock=clock.clock)


_names = itertools.count()


def steady(label: Any = "estimated", name: str = "", power_w: float = 10.0):
    return lambda clock: FakeCounter(clock, "cpu", label, power_w, counted=name or f"counter {next(_names)}")


def test_the_former_names_of_ranks_and_warnings_are_taken(caplog):
    one, two = Process(card("GPU-a")), Process(card("GPU-b"))
    one.train(10.0)
    two.train(8.0)
    with pytest.warns(FutureWarning, match=r"Meter\.beside is deprecated: call add_ranks"):
        one.meter.beside([two.state])
    assert one.meter.energy_j("train") == pytest.approx(300.0 * 18, rel=0.01)
    lost = FakeNvml(FakeClock(), driver=False)
    meter = Meter("mps", sources=[NvmlCounter("GPU-a", nvml=lost)], synchronize=lambda: None)
    with pytest.warns(FutureWarning, match=r"Meter\.open\(tell=\) is deprecated: use warn="):
        meter.open(tell=False)
    assert caplog.messages == []


def test_two_cards_are_added_and_the_seconds_are_the_first_ones():
    one, two = Process(card("GPU-a")), Process(card("GPU-b"))
    one.train(10.0)
    two.train(8.0)
    one.meter.add_ranks([two.state])
    energy = one.meter.report()["energy"]
    assert energy["train_j"] == one.meter.energy_j("train") == pytest.approx(300.0 * 18, rel=0.01)
    assert energy["train_net_j"] == pytest.approx(240.0 * 18, rel=0.01)
    window = energy["parts"]["gpu"]["windows"]["train"]
    assert (window["duration_s"], window["segments"]) == (pytest.approx(10.0), 2)
    assert one.meter.duration_s("train") == pytest.approx(10.0)
    alone = two.meter.report()["energy"]
    # Errors that are independent add up by their squares.
    assert energy["train_uncertainty_j"] == pytest.approx(2**0.5 * alone["train_uncertainty_j"], rel=0.05)


def test_what_is_told_later_takes_the_place_of_what_was_told_before():
    one, two = Process(steady(), device="cpu"), Process(steady(), device="cpu")
    for _ in range(3):
        one.train(1.0)
        two.train(2.0)
        one.meter.add_ranks([two.state])
    assert one.meter.energy_j("train") == pytest.approx(3 * 10.0 + 3 * 20.0)


@pytest.mark.parametrize(("same", "device"), [(card("GPU-a"), "mps"), (steady("measured", "this machine"), "cpu")])
def test_one_card_or_machine_is_counted_once(same, device):
    one, two = Process(same, device=device), Process(same, device=device)
    one.train(4.0)
    two.train(4.0)
    alone = one.meter.energy_j("train")
    one.meter.add_ranks([two.state, two.state])
    assert one.meter.energy_j("train") == alone


def test_a_machine_that_two_others_share_is_counted_once_too():
    here, there = (steady("measured", name) for name in ("cpu of one machine", "cpu of another"))
    one, *others = (Process(which, device="cpu") for which in (here, there, there))
    for process in (one, *others):
        process.train(3.0)
    one.meter.add_ranks([other.state for other in others])
    assert one.meter.energy_j("train") == pytest.approx(2 * 30.0)


@pytest.mark.parametrize("other", [[steady("measured")], []], ids=["measured", "absent"])
def test_unlike_labels_are_not_added(other):
    one, two = Process(steady("estimated"), device="cpu"), Process(*other, device="cpu")
    one.train(1.0)
    two.train(1.0)
    one.meter.add_ranks([two.state])
    energy = one.meter.report()["energy"]
    assert energy["train_j"] is one.meter.energy_j("train") is None
    assert energy["flags"] == ["ranks_differ"]
    one.meter.add_ranks([])
    assert one.meter.energy_j("train") == pytest.approx(10.0), "what was said before is forgotten"


def test_what_is_lost_is_null_and_absent_parts_stay_absent():
    one = Process(steady(), device="cpu")
    one.train(1.0)
    one.meter.invalidate("rank_lost")
    report = one.meter.report()["energy"]
    assert (report["train_j"], report["flags"], report["label"]) == (None, ["rank_lost"], "estimated")
    assert report["parts"]["gpu"]["label"] == "absent" and report["parts"]["gpu"]["windows"]["train"]["flags"] == []


def test_a_sum_is_resumed_by_the_first_process_alone():
    one, two = Process(steady(), device="cpu"), Process(steady(), device="cpu")
    one.train(1.0)
    two.train(2.0)
    one.meter.add_ranks([two.state])
    kept = one.state
    again, other = Process(steady(), device="cpu"), Process(steady(), device="cpu")
    again.meter.add_earlier(kept)
    other.meter.add_earlier(kept, joules=False)
    assert other.meter.energy_j("train") is None and other.meter.duration_s("train") == pytest.approx(1.0)
    again.train(1.0)
    other.train(1.0)
    again.meter.add_ranks([other.state])
    assert again.meter.energy_j("train") == pytest.approx(30.0 + 20.0)
    assert again.meter.duration_s("train") == pytest.approx(2.0)


def test_counters_name_what_they_count():
    clock = FakeClock()
    assert card("GPU-a")(clock).counted() == "card GPU-a"
    process, machine = FakeCounter(clock).counted(), RaplCounter("cpu").counted()
    assert process.startswith(f"process {os.getpid()} of ") and machine == f"cpu of {process.split(' of ')[1]}"
    assert RaplCounter("dram").counted() != machine
