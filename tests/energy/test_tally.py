"""The sums of a window: long enough, uncertain, net, unknown and resumed."""

import json
import math

import pytest

from localearn.energy.tally import Tally


def tally(segments: int, duration_s: float, power_w: float = 100.0, period_s: float | None = 0.1) -> Tally:
    result = Tally()
    for _ in range(segments):
        result.add(power_w * duration_s, duration_s, power_w, period_s)
    return result


@pytest.mark.parametrize(
    ("segments", "duration_s", "too_short"),
    [(1, 4.9, True), (1, 5.1, False), (100, 0.49, True), (100, 0.51, False), (25, 0.9, True), (25, 1.1, False)],
)
def test_long_enough_is_50_periods_or_as_certain_as_that(segments: int, duration_s: float, too_short: bool):
    assert ("too_short" in tally(segments, duration_s).report(None)["flags"]) is too_short


def test_uncertainty_adds_up_as_independent_errors_of_both_ends():
    assert tally(1, 2.0).report(None)["uncertainty_j"] == pytest.approx(100 * 0.1 * math.sqrt(2))
    assert tally(8, 2.0).report(None)["uncertainty_j"] == pytest.approx(100 * 0.1 * math.sqrt(16))


def test_an_estimate_has_no_period_to_be_uncertain_by():
    report = tally(1, 0.001, period_s=None).report(None)
    assert report["uncertainty_j"] is None
    assert report["flags"] == []


def test_net_is_gross_less_idle_power_times_time():
    report = tally(2, 3.0).report(idle_w=60.0)
    assert report["energy_j"] == pytest.approx(600.0)
    assert report["net_j"] == pytest.approx(600.0 - 60.0 * 6.0)
    assert tally(2, 3.0).report(idle_w=None)["net_j"] is None


def test_one_unknown_segment_makes_the_sum_unknown():
    spoiled = tally(3, 20.0)
    spoiled.discard("counter_reset", 1.5)
    report = spoiled.report(idle_w=60.0)
    assert report["energy_j"] is report["net_j"] is report["uncertainty_j"] is None
    assert report["flags"] == ["counter_reset"]
    assert report["duration_s"] == pytest.approx(61.5)
    assert (report["segments"], report["discarded"]) == (4, 1)


def test_nothing_counted_is_unknown_and_not_zero():
    assert Tally().report(10.0)["energy_j"] is None


def test_a_resumed_tally_takes_each_sessions_own_idle_power():
    earlier = Tally.from_state(json.loads(json.dumps(tally(1, 10.0).state(idle_w=70.0))))
    both = earlier.plus(tally(1, 5.0))
    report = both.report(idle_w=50.0)
    assert report["energy_j"] == pytest.approx(1500.0)
    assert report["net_j"] == pytest.approx(1500.0 - 70.0 * 10.0 - 50.0 * 5.0)
    assert report["segments"] == 2
    assert earlier.plus(tally(1, 5.0)).state(50.0)["idle_j"] == pytest.approx(950.0)
    assert Tally.from_state(tally(1, 10.0).state(idle_w=None)).plus(tally(1, 5.0)).report(50.0)["net_j"] is None
