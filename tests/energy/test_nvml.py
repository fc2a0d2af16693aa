"""A scripted card, read as a real one would be."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from localearn.energy.nvml import ASSUMED_PERIOD_S, NvmlCounter, torch_uuid
from localearn.energy.sources import AbsentError, LostError, idle_power_w
from localearn.testing.energy import FakeCard, FakeClock, FakeNvml, Recording, Script

CONSTANT = Script([(0.0, 300.0)])
RECORDING = Path(__file__).with_name("recording.json")


def opened(clock: FakeClock, nvml: FakeNvml, uuid: str = "GPU-a") -> NvmlCounter:
    counter = NvmlCounter(uuid, nvml=nvml, clock=clock.clock)
    counter.open()
    return counter


def test_energy_is_the_difference_of_two_reads():
    clock = FakeClock()
    counter = opened(clock, FakeNvml(clock, FakeCard("GPU-a", CONSTANT)))
    clock.advance(5.0)
    begin = counter.read()
    clock.advance(10.0)
    assert counter.joules(begin, counter.read()) == pytest.approx(3000.0)


def test_a_ramp_is_counted_exactly():
    clock = FakeClock()
    counter = opened(clock, FakeNvml(clock, FakeCard("GPU-a", Script([(0.0, 100.0), (10.0, 300.0)]))))
    begin = counter.read()
    clock.advance(10.0)
    assert counter.joules(begin, counter.read()) == pytest.approx(2000.0)


@pytest.mark.parametrize("has_counter", [True, False])
def test_a_recording_plays_back_to_its_hand_computed_energy(has_counter: bool):
    clock = FakeClock()
    card = FakeCard("GPU-a", Recording.load(RECORDING), has_counter=has_counter)
    counter = opened(clock, FakeNvml(clock, card))
    if counter._sampler is not None:
        counter._sampler.close()  # the samples are taken at the recording's own times
    begin = counter.read()
    for _ in range(10):
        clock.advance(0.1)
        end = counter.read()
    assert counter.joules(begin, end) == pytest.approx(json.loads(RECORDING.read_text())["integral_j"])
    counter.close()


def test_without_a_counter_the_power_is_sampled():
    clock = FakeClock()
    counter = opened(clock, FakeNvml(clock, FakeCard("GPU-a", CONSTANT, has_counter=False)))
    begin = counter.read()
    clock.advance(4.0)
    assert counter.joules(begin, counter.read()) == pytest.approx(1200.0)
    assert "sampled" in counter.note
    counter.close()


@pytest.mark.parametrize("period_s", [0.02, 0.1])
def test_idling_times_the_updates_and_takes_power_between_two_of_them(period_s: float):
    clock = FakeClock()
    clock.advance(0.013)
    counter = opened(clock, FakeNvml(clock, FakeCard("GPU-a", Script([(0.0, 70.0)], period_s))))
    power_w = idle_power_w([counter], 1.0, clock.clock)
    assert counter.period_s == pytest.approx(period_s, abs=0.0005)
    assert power_w["gpu"] == pytest.approx(70.0, rel=0.01)


def test_a_counter_that_never_moves_keeps_the_slowest_period_and_says_so():
    clock = FakeClock()
    counter = opened(clock, FakeNvml(clock, FakeCard("GPU-a", Script([(0.0, 70.0)], period_s=60.0))))
    idle_power_w([counter], 0.5, clock.clock)
    assert counter.period_s == ASSUMED_PERIOD_S
    assert counter.conditions()["update_period_timed"] is False


def test_a_driver_lost_while_idling_leaves_idle_power_unknown():
    clock = FakeClock()
    card = FakeCard("GPU-a", CONSTANT)
    nvml = FakeNvml(clock, card, failing={"nvmlDeviceGetTotalEnergyConsumption": [20]})
    assert idle_power_w([opened(clock, nvml)], 1.0, clock.clock) == {"gpu": None}


def test_a_reset_spoils_the_marks_around_it_alone():
    clock = FakeClock()
    counter = opened(clock, FakeNvml(clock, FakeCard("GPU-a", CONSTANT, reset_s=15.0)))
    clock.advance(10.0)
    before = counter.read()
    clock.advance(6.0)
    after = counter.read()
    with pytest.raises(LostError, match="counter_reset"):
        counter.joules(before, after)
    clock.advance(1.0)
    assert counter.joules(after, counter.read()) == pytest.approx(300.0)


def test_a_lost_driver_is_a_lost_reading():
    clock = FakeClock()
    card = FakeCard("GPU-a", CONSTANT)
    nvml = FakeNvml(clock, card, failing={"nvmlDeviceGetTotalEnergyConsumption": [2]})
    counter = opened(clock, nvml)
    with pytest.raises(LostError, match="source_lost"):
        counter.read()
    assert counter.read().value >= 0
    counter.close()
    counter.close()
    assert nvml.calls["nvmlShutdown"] == 1


def test_the_card_is_found_by_uuid_whatever_the_order():
    """CUDA_VISIBLE_DEVICES=1,0: torch's card 0 is NVML's card 1."""
    visible = [SimpleNamespace(uuid="b"), SimpleNamespace(uuid="a")]
    cuda = SimpleNamespace(get_device_properties=visible.__getitem__, current_device=lambda: 1)
    clock = FakeClock()
    nvml = FakeNvml(clock, FakeCard("GPU-a", Script([(0.0, 100.0)])), FakeCard("GPU-b", Script([(0.0, 700.0)])))
    watts = {}
    for device in ("cuda:0", "cuda:1", "cuda"):
        watts[device] = opened(clock, nvml, torch_uuid(torch.device(device), cuda)).power_w()
    assert watts == {"cuda:0": 700.0, "cuda:1": 100.0, "cuda": 100.0}


def test_no_driver_is_absent_with_the_reason():
    clock = FakeClock()
    with pytest.raises(AbsentError, match=r"NVML: .*Not Found"):
        opened(clock, FakeNvml(clock, driver=False))


def test_an_unknown_card_is_absent_with_its_uuid():
    clock = FakeClock()
    nvml = FakeNvml(clock, FakeCard("GPU-a", CONSTANT))
    with pytest.raises(AbsentError, match="GPU-z"):
        opened(clock, nvml, "GPU-z")


@pytest.mark.parametrize("uuid", ["GPU-a", "MIG-slice"])
def test_a_mig_slice_is_refused(uuid: str):
    clock = FakeClock()
    nvml = FakeNvml(clock, FakeCard("GPU-a", CONSTANT, mig=True))
    with pytest.raises(AbsentError, match="MIG"):
        opened(clock, nvml, uuid)
    assert nvml.calls["nvmlShutdown"] == 1


def test_a_card_that_shows_neither_energy_nor_power_is_absent():
    clock = FakeClock()
    card = FakeCard("GPU-a", CONSTANT, has_counter=False)
    with pytest.raises(AbsentError, match="GPU-a"):
        opened(clock, FakeNvml(clock, card, failing={"nvmlDeviceGetPowerUsage": [1]}))


def test_a_sample_flags_throttling_and_other_processes_and_logs_ranges():
    clock = FakeClock()
    card = FakeCard("GPU-a", CONSTANT, pids=[os.getpid()])
    counter = opened(clock, FakeNvml(clock, card))
    assert counter.sample_conditions() == set()
    clock.advance(1.0)
    card.throttle_bits, card.temperature_c, card.pids = 0x01 | 0x20, 87, [os.getpid(), 1]
    assert counter.sample_conditions() == {"throttled", "foreign_process"}
    clock.advance(1.0)
    card.throttle_bits, card.temperature_c, card.pids = 0x01, 60, [os.getpid()]
    assert counter.sample_conditions() == set()
    seen = counter.conditions()
    assert seen["temperature_c"] == {"first": 40, "last": 60, "min": 40, "max": 87}
    assert seen["throttle_reasons"] == ["software_thermal"]
    assert seen["foreign_processes"] == 1
    assert "power_limit_w" not in seen
    json.dumps(seen)


def test_in_a_container_one_unknown_process_is_taken_for_our_own():
    clock = FakeClock()
    card = FakeCard("GPU-a", CONSTANT, pids=[-1])
    counter = opened(clock, FakeNvml(clock, card))
    assert counter.sample_conditions() == set()
    clock.advance(1.0)
    card.pids = [-1, -2]
    assert counter.sample_conditions() == {"foreign_process"}


def test_what_the_driver_never_reports_is_null_and_flags_nothing():
    """A container may show no processes, not even this one, and a card may have no query for throttling."""
    clock = FakeClock()
    card = FakeCard("GPU-a", CONSTANT)
    nvml = FakeNvml(clock, card, failing={"nvmlDeviceGetCurrentClocksThrottleReasons": [1, 2]})
    counter = opened(clock, nvml)
    for _ in range(2):
        assert counter.sample_conditions() == set()
        clock.advance(1.0)
    assert counter.conditions()["foreign_processes"] is None
    assert counter.conditions()["throttle_reasons"] is None
    card.pids = [os.getpid()]
    assert counter.sample_conditions() == set()
    assert counter.conditions()["foreign_processes"] == 0
    assert counter.conditions()["throttle_reasons"] == []
