"""Sampled power becomes energy."""

import json
import time
from pathlib import Path

import pytest

from localearn.energy.sources import Clock, Counter, LostError, Mark, PowerIntegral, PowerSampler

RECORDING = json.loads(Path(__file__).with_name("recording.json").read_text())


def test_constant_power_integrates_with_every_equal_sample():
    integral = PowerIntegral()
    for tick in range(101):
        integral.add(tick * 0.1, 300.0)
    assert integral.energy_j == pytest.approx(3000.0)


def test_a_recording_integrates_to_the_hand_computed_energy():
    integral = PowerIntegral()
    for now_s, power_w, _ in RECORDING["readings"]:
        integral.add(now_s, power_w)
    assert integral.energy_j == pytest.approx(RECORDING["integral_j"])


def test_a_gap_is_not_bridged():
    integral = PowerIntegral()
    integral.add(0.0, 100.0)
    integral.add(1.0, 100.0)
    integral.interrupt()
    integral.add(9.0, 100.0)
    integral.add(10.0, 100.0)
    assert integral.energy_j == pytest.approx(200.0)


def test_the_thread_samples_while_the_machine_works():
    samples = []

    def ramp_w() -> float:
        samples.append(time.perf_counter())
        return 300.0

    sampler = PowerSampler(ramp_w, Clock())
    try:
        begin, begin_s = sampler.read(), samples[-1]
        time.sleep(0.2)
        end, end_s = sampler.read(), samples[-1]
    finally:
        sampler.close()
    assert len(samples) > 2
    assert end.value - begin.value == pytest.approx(300.0 * (end_s - begin_s), rel=0.02)


def test_a_source_that_fails_between_two_reads_begins_another_life():
    answers = iter([100.0, LostError("source_lost"), 100.0])

    def power_w() -> float:
        answer = next(answers)
        if isinstance(answer, LostError):
            raise answer
        return answer

    sampler = PowerSampler(power_w, Clock())
    sampler.close()
    begin = sampler.read()
    with pytest.raises(LostError, match="source_lost"):
        sampler.read()
    assert sampler.read().life == begin.life + 1


class Sensor(Counter):
    part, source, label, note, period_s, includes_idle = "cpu", "sensor", "measured", "", None, True

    def open(self) -> None:
        pass

    def read(self) -> Mark:
        return Mark(0.0)

    def joules(self, begin: Mark, end: Mark) -> float:
        return end.value - begin.value

    def close(self) -> None:
        pass


class Warm(Sensor):
    def sample_conditions(self) -> set[str]:
        return {"warm"}


def test_the_former_name_of_sample_conditions_is_called_and_overridden_for_one_release():
    with pytest.warns(FutureWarning, match=r"^Counter\.look is deprecated: use sample_conditions$"):
        assert Warm().look() == {"warm"}
    with pytest.warns(FutureWarning, match=r"^Former\.look: the method of a Counter is named sample_conditions now$"):

        class Former(Sensor):
            def look(self) -> set[str]:
                return {"cold"} | super().look()

    with pytest.warns(FutureWarning, match="is deprecated"):
        assert Former().sample_conditions() == {"cold"}
