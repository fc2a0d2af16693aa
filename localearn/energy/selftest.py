"""Checks of the meter on the machine at hand: windows of known load, and what must hold of a meter that is right.

The command is `python -m localearn.energy.check`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, final

import torch

from localearn.energy.meter import Meter
from localearn.energy.selftest_load import Load
from localearn.energy.sources import AbsentError, Clock, Counter, PowerIntegral
from localearn.energy.tally import LONG_PERIODS
from localearn.moved import former_names

HALF_CYCLE_S = 0.1
INTEGRAL_TOLERANCE = 0.05
EQUAL_TOLERANCE = 0.03
DOUBLED_TOLERANCE = 0.25  # a card's clocks stay up between bursts, so it rests above idle power
LIMIT_TOLERANCE = 0.05
SHORT_PERIODS = 20
NEIGHBOUR_S = 2.0
EXPECTATIONS = {
    "counter against power": f"the counter's joules of a steady load lie within {INTEGRAL_TOLERANCE:.0%} of the power "
    "readings' integral over the same window",
    "equal windows": f"two windows of the same work differ by less than {EQUAL_TOLERANCE:.0%}",
    "watts by load": "idle < half load < full load, and none above the power limit that the source shows",
    "doubled load": "what full load adds to idle power is twice what half load adds, within "
    f"{DOUBLED_TOLERANCE:.0%} of twice",
    "short window": f"a window of about {SHORT_PERIODS} update periods is flagged too_short, one of more than "
    f"{LONG_PERIODS} is not",
    "second process": "foreign_process is flagged while a second process loads the card, and not before it began",
}
Neighbour = Callable[[], AbstractContextManager[object]]
Verdict = Literal["passed", "failed", "not run"]
Figures = Mapping[str, float | list[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check's result, a row of the page.

    Args:
        check: its name, one of `EXPECTATIONS`.
        part: whose energy it is about.
        expectation: what must hold, as text, the tolerance included.
        verdict: whether it holds.
        figures: what was measured, with units in the names.
        tolerance: what the verdict allows for, None where there is nothing to allow for.
        reason: why it failed or was not run.

    """

    check: str
    part: Literal["gpu", "cpu"]
    expectation: str
    verdict: Verdict
    figures: Figures = field(default_factory=dict)
    tolerance: float | None = None
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the outcome ready for JSON."""
        return {
            "check": self.check,
            "part": self.part,
            "expectation": self.expectation,
            "verdict": self.verdict,
            "tolerance": self.tolerance,
            "figures": dict(self.figures),
            "reason": self.reason,
        }


def difference(one: float, other: float) -> float:
    """Return the relative difference of two figures, as a fraction of their mean; infinite where the mean is 0.

    Args:
        one: a figure.
        other: another, in the same unit.

    """
    mean = (abs(one) + abs(other)) / 2
    return abs(one - other) / mean if mean else math.inf


@dataclass(frozen=True, slots=True)
class Span:
    """A metered window and what the meter recorded of it.

    Args:
        title: the window's name in the plot.
        begin_s: when it began, by the bench's clock.
        end_s: when it ended.
        energy_j: its joules, None where the meter does not know them.
        duration_s: its seconds.
        integral_j: the power readings of the window, integrated; None where the source shows no power.
        flags: the meter's.

    """

    title: str
    begin_s: float
    end_s: float
    energy_j: float | None
    duration_s: float
    integral_j: float | None
    flags: frozenset[str]

    @property
    def power_w(self) -> float | None:
        """The window's mean power by the meter."""
        return None if self.energy_j is None else self.energy_j / self.duration_s


@final
class Bench:
    """A load and the counter that is checked. Every window is a `Meter`'s own, as in a training run.

    Args:
        device: where the load runs; a card is synchronised at both ends of a window.
        counter: of the part that the load heats. It is opened here and again for each window, and its measured
            update period is reused.
        load: what to run.
        clock: stamps all readings.
        synchronize: waits for the device, see `Meter`.

    """

    def __init__(
        self,
        device: torch.device,
        counter: Counter,
        load: Load,
        clock: Clock,
        synchronize: Callable[[], None] | None = None,
    ) -> None:
        self.counter = counter
        self.spans: list[Span] = []
        self.trace: list[tuple[float, float]] = []
        self.idle_w: float | None = None
        self.conditions: dict[str, Any] = {}
        self._device = device
        self._load = load
        self._clock = clock
        self._synchronize = synchronize

    @property
    def power_limit_w(self) -> float | None:
        """The power limit in watts that the source shows, None where it shows none."""
        seen = self.conditions.get("power_limit_w")
        return None if seen is None else seen["max"]

    def idle(self, seconds: float) -> None:
        """Measure idle power as a run does before it trains, and time the counter's updates.

        An estimate holds no idle power that could be subtracted, so a window without work takes its place.

        Args:
            seconds: how long.

        Raises:
            AbsentError: where the source is not there.

        """
        meter = self._meter(seconds)
        meter.open()
        meter.close()
        part = meter.report()["energy"]["parts"][self.counter.part]
        if part["label"] == "absent":
            raise AbsentError(part["note"])
        if part["idle_w"] is not None:
            self.idle_w = part["idle_w"]["before"]
        else:
            self.idle_w = self._span("idle", lambda integral: self._clock.sleep(seconds)).power_w

    def warm_up(self, seconds: float) -> float:
        """Load the device until it is warm and return how many bursts a second it does.

        Args:
            seconds: how long.

        """
        bursts, begin_s = 0, self._clock.now()
        while self._clock.now() - begin_s < seconds:
            self._load.burst()
            bursts += 1
        self._load.finish()
        return bursts / (self._clock.now() - begin_s)

    def steady(self, title: str, bursts: int) -> Span:
        """Meter bursts, one after the other.

        Args:
            title: the window's name.
            bursts: how many.

        """

        def work(integral: PowerIntegral) -> None:
            for _ in range(bursts):
                self._load.burst()
                self._sample(integral)

        return self._span(title, work)

    def half(self, title: str, seconds: float) -> Span:
        """Meter bursts that take turns with rests of their own length.

        Args:
            title: the window's name.
            seconds: how long.

        """

        def work(integral: PowerIntegral) -> None:
            end_s = self._clock.now() + seconds
            while (begin_s := self._clock.now()) < end_s:
                while self._clock.now() - begin_s < HALF_CYCLE_S:
                    self._load.burst()
                    self._sample(integral)
                self._load.finish()
                self._clock.sleep(self._clock.now() - begin_s)
                self._sample(integral)

        return self._span(title, work)

    def _span(self, title: str, work: Callable[[PowerIntegral], None]) -> Span:
        with self._opened() as meter:
            integral = PowerIntegral()
            begin_s = self._clock.now()
            with meter.window("train"):
                self._sample(integral)
                work(integral)
                self._load.finish()
                self._sample(integral)
            end_s = self._clock.now()
        energy = meter.report()["energy"]
        window = energy["parts"][self.counter.part]["windows"]["train"]
        self.conditions = energy["conditions"] or self.conditions
        span = Span(
            title,
            begin_s,
            end_s,
            window["energy_j"],
            window["duration_s"],
            integral.energy_j or None,
            frozenset(window["flags"]),
        )
        self.spans.append(span)
        return span

    @contextmanager
    def _opened(self) -> Iterator[Meter]:
        meter = self._meter(0.0)
        meter.open()
        try:
            yield meter
        finally:
            meter.close()

    def _meter(self, idle_s: float) -> Meter:
        return Meter(
            self._device,
            sources=[self.counter],
            idle_s=idle_s,
            clock=self._clock,
            synchronize=self._synchronize,
        )

    def _sample(self, integral: PowerIntegral) -> None:
        power_w = self.counter.power_w()
        if power_w is not None:
            now_s = self._clock.now()
            integral.add(now_s, power_w)
            self.trace.append((now_s, power_w))


def not_run(part: Literal["gpu", "cpu"], reason: str) -> list[Outcome]:
    """Return all checks of a part as not run.

    Args:
        part: whose energy they are about.
        reason: why they were not run.

    """
    return [Outcome(check, part, expectation, "not run", reason=reason) for check, expectation in EXPECTATIONS.items()]


def run_checks(bench: Bench, neighbour: Neighbour | None, seconds: float) -> list[Outcome]:
    """Run all checks of a part, about four times `seconds` long.

    Args:
        bench: the part's load and counter.
        neighbour: a context in which a second process loads the part; None where the source cannot separate processes.
        seconds: the length of a window.

    """
    part = bench.counter.part
    assert part != "dram"
    try:
        bench.idle(seconds)
    except AbsentError as reason:
        return not_run(part, str(reason))
    bursts = max(1, round(seconds * bench.warm_up(seconds / 2)))
    first, second = bench.steady("full load", bursts), bench.steady("full load again", bursts)
    half = bench.half("half load", seconds)
    return list(_Checks(bench, first, second, half, neighbour, bursts / seconds).outcomes())


@final
class _Checks:
    """The checks of one part, from the windows that they share."""

    def __init__(
        self,
        bench: Bench,
        first: Span,
        second: Span,
        half: Span,
        neighbour: Neighbour | None,
        bursts_per_s: float,
    ) -> None:
        self._bench = bench
        self._first, self._second, self._half = first, second, half
        self._neighbour = neighbour
        self._bursts_per_s = bursts_per_s

    def outcomes(self) -> Iterator[Outcome]:
        yield self._counter_against_power()
        yield self._equal_windows()
        yield self._watts_by_load()
        yield self._doubled_load()
        yield self._short_window()
        yield self._second_process()

    def _counter_against_power(self) -> Outcome:
        name, span = "counter against power", self._first
        if span.integral_j is None:
            return self._not_run(name, f"{self._bench.counter.source} shows no power beside its energy")
        if self._bench.counter.integrates_power:
            return self._not_run(name, "the source has no energy counter: its joules are integrated power already")
        if span.energy_j is None:
            return self._lost(name, span)
        relative = difference(span.energy_j, span.integral_j)
        figures = {"counter_j": span.energy_j, "integral_j": span.integral_j, "difference": relative}
        wrong = [] if relative <= INTEGRAL_TOLERANCE else [f"they lie {relative:.1%} apart"]
        return self._judged(name, figures, wrong, INTEGRAL_TOLERANCE)

    def _equal_windows(self) -> Outcome:
        name, one, other = "equal windows", self._first, self._second
        if one.energy_j is None or other.energy_j is None:
            return self._lost(name, one, other)
        relative = difference(one.energy_j, other.energy_j)
        figures = {
            "first_j": one.energy_j,
            "second_j": other.energy_j,
            "first_s": one.duration_s,
            "second_s": other.duration_s,
            "difference": relative,
        }
        wrong = [] if relative <= EQUAL_TOLERANCE else [f"they lie {relative:.1%} apart"]
        return self._judged(name, figures, wrong, EQUAL_TOLERANCE)

    def _watts_by_load(self) -> Outcome:
        name, bench = "watts by load", self._bench
        idle_w, half_w, full_w = bench.idle_w, self._half.power_w, self._first.power_w
        if idle_w is None or half_w is None or full_w is None:
            return self._lost(name, self._half, self._first)
        figures = {"idle_w": idle_w, "half_w": half_w, "full_w": full_w}
        wrong = []
        if not idle_w < half_w:
            wrong.append("half load draws no more than idling")
        if not half_w < full_w:
            wrong.append("full load draws no more than half load")
        limit_w = bench.power_limit_w
        if limit_w is not None:
            figures["limit_w"] = limit_w
            if full_w > limit_w * (1 + LIMIT_TOLERANCE):
                wrong.append("full load draws more than the power limit")
        return self._judged(name, figures, wrong, None if limit_w is None else LIMIT_TOLERANCE)

    def _doubled_load(self) -> Outcome:
        name = "doubled load"
        idle_w, half_w, full_w = self._bench.idle_w, self._half.power_w, self._first.power_w
        if idle_w is None or half_w is None or full_w is None:
            return self._lost(name, self._half, self._first)
        figures = {"half_above_idle_w": half_w - idle_w, "full_above_idle_w": full_w - idle_w}
        if half_w <= idle_w:
            return self._judged(name, figures, ["half load draws no more than idling"], DOUBLED_TOLERANCE)
        figures["ratio"] = ratio = (full_w - idle_w) / (half_w - idle_w)
        wrong = [] if abs(ratio / 2 - 1) <= DOUBLED_TOLERANCE else [f"it is {ratio:.2f} times"]
        return self._judged(name, figures, wrong, DOUBLED_TOLERANCE)

    def _short_window(self) -> Outcome:
        name, period_s = "short window", self._bench.counter.period_s
        if period_s is None:
            return self._not_run(name, "an estimate has no update period, and no window is too short for it")
        bursts = max(1, round(SHORT_PERIODS * period_s * self._bursts_per_s))
        short = self._bench.steady("short", bursts)
        figures = {
            "period_s": period_s,
            "short_s": short.duration_s,
            "short_flags": sorted(short.flags),
            "long_s": self._first.duration_s,
            "long_flags": sorted(self._first.flags),
        }
        if not short.duration_s < LONG_PERIODS * period_s < self._first.duration_s:
            return self._not_run(name, f"{LONG_PERIODS} periods are not between both windows; give more seconds=")
        wrong = [] if "too_short" in short.flags else ["the short window is not flagged"]
        wrong += ["the long window is flagged"] if "too_short" in self._first.flags else []
        return self._judged(name, figures, wrong)

    def _second_process(self) -> Outcome:
        name = "second process"
        if self._neighbour is None:
            return self._not_run(name, f"{self._bench.counter.source} does not separate processes")
        bursts = max(1, round(NEIGHBOUR_S * self._bursts_per_s))
        before = self._bench.steady("alone", bursts)
        try:
            with self._neighbour():
                together = self._bench.steady("beside a second process", bursts)
        except ChildProcessError as error:
            return self._not_run(name, str(error))
        figures = {"flags_before": sorted(before.flags), "flags_beside": sorted(together.flags)}
        wrong = [] if "foreign_process" in together.flags else ["the second process is not flagged"]
        if "foreign_process" in before.flags:
            wrong.append("it was flagged before: either another process is on the card, or the flag means nothing")
        return self._judged(name, figures, wrong)

    def _judged(self, check: str, figures: Figures, wrong: Sequence[str], tolerance: float | None = None) -> Outcome:
        verdict = "failed" if wrong else "passed"
        return Outcome(check, self._part, EXPECTATIONS[check], verdict, figures, tolerance, "; ".join(wrong))

    def _lost(self, check: str, *spans: Span) -> Outcome:
        flags = sorted({flag for span in spans for flag in span.flags})
        reason = (
            f"a reading was lost ({', '.join(flags) or 'while idling, or the source went away between two windows'})"
        )
        return Outcome(check, self._part, EXPECTATIONS[check], "failed", reason=reason)

    def _not_run(self, check: str, reason: str) -> Outcome:
        return Outcome(check, self._part, EXPECTATIONS[check], "not run", reason=reason)

    @property
    def _part(self) -> Literal["gpu", "cpu"]:
        assert self._bench.counter.part != "dram"
        return self._bench.counter.part


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
