"""All checks pass on a card that is right, and each fails on a card that is wrong in its way."""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from localearn.energy.nvml import NvmlCounter
from localearn.energy.selftest import EXPECTATIONS, Bench, Outcome, difference, run_checks
from localearn.energy.selftest_load import BURST_S
from localearn.energy.sources import Mark
from localearn.testing.energy import FakeCard, FakeClock, FakeCounter, FakeNvml

UUID, PERIOD_S, SECONDS = "GPU-a", 0.02, 4.0


class LoadedSource:
    """A card that draws one power while a burst runs and another between them, and refreshes what it shows.

    busy_w: by the time. counter_scale: what the counter says over what the card used.
    """

    def __init__(self, clock: FakeClock, idle_w: float, busy_w: Callable[[float], float], counter_scale: float) -> None:
        self._clock = clock
        self._idle_w, self._busy_w, self._counter_scale = idle_w, busy_w, counter_scale
        self._busy_s = self._busy_j = 0.0
        self._shown_s, self._shown_w, self._shown_mj = -math.inf, idle_w, 0

    def burst(self) -> None:
        self._refresh()
        power_w = self._busy_w(self._clock.now_s)
        self._busy_s += BURST_S
        self._busy_j += BURST_S * power_w
        self._clock.advance(BURST_S)
        self._refresh(power_w)

    def finish(self) -> None:
        pass

    def power_w(self, now_s: float) -> float:
        self._refresh()
        return self._shown_w

    def energy_mj(self, now_s: float) -> int:
        self._refresh()
        return self._shown_mj

    def _refresh(self, power_w: float | None = None) -> None:
        now_s = self._clock.now_s
        if now_s - self._shown_s >= PERIOD_S - 1e-9:
            self._shown_s, self._shown_w = now_s, self._idle_w if power_w is None else power_w
            joules = self._busy_j + self._idle_w * (now_s - self._busy_s)
            self._shown_mj = round(joules * self._counter_scale * 1000)


@dataclass
class World:
    """A card, its bench, and what a second process does to what the card tells."""

    card: FakeCard
    nvml: FakeNvml
    bench: Bench
    pids_beside: Collection[int]

    @contextmanager
    def neighbour(self) -> Iterator[None]:
        before, self.card.pids = self.card.pids, self.pids_beside
        yield
        self.card.pids = before


@pytest.fixture
def world():
    """Give a maker of worlds; the device that is no CPU makes the card the headline, and nothing runs on it."""

    def make(
        *,
        idle_w: float = 60.0,
        busy_w: Callable[[float], float] = lambda now_s: 300.0,
        counter_scale: float = 1.0,
        pids: Collection[int] = (-1,),
        pids_beside: Collection[int] = (-1, -2),
        **fields: Any,
    ) -> World:
        clock = FakeClock()
        source = LoadedSource(clock, idle_w, busy_w, counter_scale)
        card = FakeCard(UUID, source, pids=pids, **fields)
        nvml = FakeNvml(clock, card)
        counter = NvmlCounter(UUID, nvml=nvml, clock=clock.clock)
        bench = Bench(torch.device("mps"), counter, source, clock.clock, source.finish)
        return World(card, nvml, bench, pids_beside)

    return make


def checked(world: World) -> dict[str, Outcome]:
    outcomes = run_checks(world.bench, world.neighbour, SECONDS)
    assert [outcome.check for outcome in outcomes] == list(EXPECTATIONS)
    return {outcome.check: outcome for outcome in outcomes}


def verdicts(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: outcome.verdict for name, outcome in outcomes.items()}


def test_a_card_that_is_right_passes_every_check(world):
    made = world(power_limit_w=310.0)
    outcomes = checked(made)
    assert verdicts(outcomes) == dict.fromkeys(EXPECTATIONS, "passed")
    watts = outcomes["watts by load"].figures
    assert watts == pytest.approx({"idle_w": 60.0, "half_w": 180.0, "full_w": 300.0, "limit_w": 310.0}, rel=0.02)
    assert outcomes["doubled load"].figures["ratio"] == pytest.approx(2.0, rel=0.03)
    assert outcomes["short window"].figures["period_s"] == pytest.approx(PERIOD_S)
    assert outcomes["counter against power"].figures["counter_j"] == pytest.approx(300.0 * SECONDS, rel=0.02)
    assert [span.title for span in made.bench.spans] == [
        "full load",
        "full load again",
        "half load",
        "short",
        "alone",
        "beside a second process",
    ]


def hotter(now_s: float) -> float:
    """From 300 W by 2 % a second."""
    return 300.0 * 1.02**now_s


WRONG = {
    "a counter 10 % above the power": ({"counter_scale": 1.1}, {"counter against power"}),
    "a counter 10 % below the power": ({"counter_scale": 0.9}, {"counter against power"}),
    "a card that draws more and more": ({"busy_w": hotter}, {"equal windows"}),
    "a load that raises no watts": ({"idle_w": 300.0}, {"watts by load", "doubled load"}),
    "more watts than the limit": ({"power_limit_w": 250.0}, {"watts by load"}),
    "a second process that is not told": ({"pids_beside": (-1,)}, {"second process"}),
    "a process told that was there before": ({"pids": (-1, -2)}, {"second process"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_fails_its_own_check_and_no_other(world, name: str):
    options, expected = WRONG[name]
    outcomes = checked(world(**options))
    failed = {check for check, outcome in outcomes.items() if outcome.verdict == "failed"}
    assert failed == expected
    assert all(outcomes[check].reason for check in failed)


def test_half_load_that_costs_nearly_as_much_as_full_is_no_half(world):
    made = world()

    def half(title: str, seconds: float) -> Any:  # clocks that stay up, and power with them
        return made.bench.steady(title, round(0.9 * seconds / BURST_S))

    made.bench.half = half
    outcomes = checked(made)
    assert outcomes["doubled load"].verdict == "failed"
    assert "1.00 times" in outcomes["doubled load"].reason


def test_a_meter_that_flags_nothing_or_everything_fails_the_short_window(world, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("localearn.energy.tally.LONG_PERIODS", 0)
    assert checked(world())["short window"].reason == "the short window is not flagged"
    monkeypatch.setattr("localearn.energy.tally.LONG_PERIODS", 10_000)
    assert checked(world())["short window"].reason == "the long window is flagged"


def test_windows_too_short_to_tell_are_not_run(world):
    made = world()
    outcomes = run_checks(made.bench, made.neighbour, 0.5)
    (short,) = [outcome for outcome in outcomes if outcome.check == "short window"]
    assert (short.verdict, "seconds=" in short.reason) == ("not run", True)


def test_a_card_without_a_counter_is_not_compared_with_itself(world):
    outcomes = checked(world(has_counter=False))
    assert outcomes["counter against power"].verdict == "not run"
    assert "integrated power already" in outcomes["counter against power"].reason


def test_a_driver_lost_at_the_end_of_a_window_fails_what_rests_on_it_and_no_more(world):
    def busy_w(now_s: float) -> float:  # idle 4 s, warm-up 2 s, windows of 4 s: the third begins
        made.nvml.lost = 13.5 <= now_s < 14.2
        return 300.0

    made = world(busy_w=busy_w)
    outcomes = checked(made)
    lost = {"equal windows", "watts by load", "doubled load"}
    assert verdicts(outcomes) == dict.fromkeys(EXPECTATIONS, "passed") | dict.fromkeys(lost, "failed")
    assert "source_lost" in outcomes["equal windows"].reason
    assert "went away between two windows" in outcomes["doubled load"].reason


def test_a_driver_that_is_not_there_leaves_all_not_run_with_the_reason(world):
    made = world()
    made.nvml.lost = True
    outcomes = checked(made)
    assert set(verdicts(outcomes).values()) == {"not run"}
    assert all("NVML" in outcome.reason for outcome in outcomes.values())


def test_an_estimate_is_checked_for_what_it_can_be(world):
    clock = FakeClock()
    counter = FakeCounter(clock, "cpu", "estimated", 0.0)
    source = LoadedSource(clock, 0.0, lambda now_s: 20.0, 1.0)
    counter.read = lambda: Mark(source.energy_mj(clock.now_s) / 1000)
    bench = Bench(torch.device("cpu"), counter, source, clock.clock)
    outcomes = {outcome.check: outcome for outcome in run_checks(bench, None, SECONDS)}
    run = {name for name, outcome in outcomes.items() if outcome.verdict != "not run"}
    assert run == {"equal windows", "watts by load", "doubled load"}
    assert {outcomes[name].verdict for name in run} == {"passed"}
    assert outcomes["watts by load"].figures == pytest.approx({"idle_w": 0.0, "half_w": 10.0, "full_w": 20.0}, rel=0.02)
    assert all(outcome.reason for name, outcome in outcomes.items() if name not in run)


def test_a_difference_is_a_share_of_the_mean():
    assert difference(95.0, 105.0) == pytest.approx(0.1)
    assert difference(0.0, 0.0) == float("inf")
