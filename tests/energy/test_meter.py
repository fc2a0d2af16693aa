"""Windows, and what goes wrong in them, on scripted sources."""

import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from localearn.energy import Meter
from localearn.energy.codecarbon import CpuEstimate, ProcessModel
from localearn.energy.nvml import NvmlCounter
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
    quiet.open(tell=False)
    assert quiet.absence == meter.absence and not caplog.records
