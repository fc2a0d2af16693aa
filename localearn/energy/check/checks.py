"""The checks. Each measures on a bench and compares with what must hold of a meter that is right."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, final

from localearn.energy.check.outcome import Figures, Outcome, difference
from localearn.energy.selftest import Bench, Span
from localearn.energy.sources import AbsentError
from localearn.energy.tally import LONG_PERIODS

INTEGRAL_TOLERANCE = 0.05
EQUAL_TOLERANCE = 0.03
DOUBLED_TOLERANCE = 0.25  # between bursts a card keeps its clocks up for a while, and rests above its idle power
LIMIT_TOLERANCE = 0.05
SHORT_PERIODS = 20
BESIDE_S = 2.0

EXPECTATIONS = {
    "counter against power": f"the counter's joules of a steady load lie within {INTEGRAL_TOLERANCE:.0%} of the power "
    "readings' integral over the same window",
    "equal windows": f"two windows of the same work differ by less than {EQUAL_TOLERANCE:.0%}",
    "watts by load": "idle < half load < full load, and none above the power limit that the source tells",
    "doubled load": "what full load adds to idle power is twice what half load adds, within "
    f"{DOUBLED_TOLERANCE:.0%} of twice",
    "short window": f"a window of about {SHORT_PERIODS} update periods is flagged too_short, one of more than "
    f"{LONG_PERIODS} is not",
    "second process": "foreign_process is flagged while a second process loads the card, and not before it began",
}

Neighbour = Callable[[], AbstractContextManager[object]]


def not_run(part: Literal["gpu", "cpu"], reason: str) -> list[Outcome]:
    """Return all checks of a part as not run."""
    return [Outcome(check, part, expectation, "not run", reason=reason) for check, expectation in EXPECTATIONS.items()]


def run_checks(bench: Bench, neighbour: Neighbour | None, seconds: float) -> list[Outcome]:
    """Run all checks of a part, about four times `seconds` long.

    neighbour: a context in which a second process loads the part; None where no process is told from another.
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
        apart = difference(span.energy_j, span.integral_j)
        figures = {"counter_j": span.energy_j, "integral_j": span.integral_j, "difference": apart}
        wrong = [] if apart <= INTEGRAL_TOLERANCE else [f"they lie {apart:.1%} apart"]
        return self._judged(name, figures, wrong, INTEGRAL_TOLERANCE)

    def _equal_windows(self) -> Outcome:
        name, one, other = "equal windows", self._first, self._second
        if one.energy_j is None or other.energy_j is None:
            return self._lost(name, one, other)
        apart = difference(one.energy_j, other.energy_j)
        figures = {
            "first_j": one.energy_j,
            "second_j": other.energy_j,
            "first_s": one.duration_s,
            "second_s": other.duration_s,
            "difference": apart,
        }
        wrong = [] if apart <= EQUAL_TOLERANCE else [f"they lie {apart:.1%} apart"]
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
            return self._not_run(name, f"{self._bench.counter.source} does not tell processes from each other")
        bursts = max(1, round(BESIDE_S * self._bursts_per_s))
        before = self._bench.steady("alone", bursts)
        try:
            with self._neighbour():
                beside = self._bench.steady("beside a second process", bursts)
        except ChildProcessError as error:
            return self._not_run(name, str(error))
        figures = {"flags_before": sorted(before.flags), "flags_beside": sorted(beside.flags)}
        wrong = [] if "foreign_process" in beside.flags else ["the second process is not flagged"]
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
