"""Steps on a made-up clock: what a bench says of them."""

import itertools
from dataclasses import astuple
from typing import Any

import pytest
import torch

from localearn.benching import measure
from localearn.benching.measure import Spread
from localearn.benching.workload import Point
from localearn.energy.sources import Clock
from localearn.testing.energy import FakeClock, FakeCounter


def test_a_spread_is_the_median_with_its_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_ratios_are_taken_within_a_turn_and_the_first_turn_is_discarded():
    clock = FakeClock()

    class Work:
        """Steps of known times, one of `spent` a turn; a slow machine doubles both rules' in the third."""

        point = Point("net", (1,), 10, "fp32", torch.device("cpu"))
        net = torch.nn.Linear(2, 3)
        one_pass, captured = False, "off"

        def capture(self):
            """Nothing to capture."""

        def __init__(self, algo, spent):
            self.algo, self.spent = algo, iter([0.0] * measure.WARM_UP + [0.1, *spent])

        def step(self):
            clock.advance(next(self.spent))

        def multiply_adds(self):
            return 300

        def live_bytes(self):
            return 5

    works: Any = [Work("backprop", [9.0, 1.0, 2.0, 1.0]), Work("rule", [99.0, 0.5, 1.0, 0.5])]
    found = measure.bench(
        works, "backprop", turns=3, turn_s=0.1, clock=clock.clock, rate_of=lambda point, seconds: 1000.0
    )
    ours = found.rules[1]
    assert astuple(ours.ratio) == pytest.approx((0.5, 0.5, 0.5))
    assert (ours.step_s.median, ours.samples_per_s) == (pytest.approx(0.5), pytest.approx(20.0))
    assert (ours.limit_s, ours.share_of_limit) == (0.3, pytest.approx(0.6))
    assert found.parameters == 9


class Steady:
    """A step that takes two seconds of a made-up clock."""

    point = Point("net", (1,), 10, "fp32", torch.device("cpu"))
    net = torch.nn.Linear(2, 3)
    one_pass, captured = False, "off"

    def capture(self):
        """Nothing to capture."""

    algo = "backprop"

    def __init__(self, clock):
        self.step = lambda: clock.advance(2.0)

    def multiply_adds(self):
        return 300

    def live_bytes(self):
        return 5


def bench_of_joules(lost=False, **counter):
    clock = FakeClock()
    source = FakeCounter(clock, label="measured", **counter)
    source.lost = lost
    works: Any = [Steady(clock)]
    return measure.bench(works, "backprop", 2, 6.0, source, clock=clock.clock, rate_of=lambda point, seconds: 1000.0)


def test_joules_are_those_of_the_steps():
    """30 W for two seconds a step of ten rows."""
    found = bench_of_joules(power_w=30.0)
    assert found.rules[0].joules_per_sample == Spread(6.0, 6.0, 6.0)
    assert found.energy and (found.energy["label"], found.energy["too_short"]) == ("measured", False)
    found = bench_of_joules(power_w=30.0, period_s=0.5)
    assert found.energy and found.energy["too_short"]


def test_lost_joules_are_absent_and_the_seconds_stay():
    found = bench_of_joules(lost=True)
    assert found.rules[0].joules_per_sample is None
    assert found.rules[0].step_s.median == 2.0


def test_the_matrix_rate_is_that_of_the_fastest_size():
    """Each product, the small one and the large one, takes a second by a clock of one second a look."""
    clock = Clock(now=map(float, itertools.count()).__next__)
    point = Point("net", (1,), 1, "bf16", torch.device("cpu"))
    assert measure.matrix_rate(point, 2.0, sizes=(2, 4), clock=clock) == 4**3 / 1.0
