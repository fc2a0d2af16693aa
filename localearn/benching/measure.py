"""Timing of rules in turns, in one process, with the device's matrix rate measured between them."""

import contextlib
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from localearn.benching.workload import Point, Workload
from localearn.energy import AbsentError, Counter, LostError, Mark
from localearn.energy.nvml import NvmlCounter, torch_uuid
from localearn.energy.rapl import RaplCounter
from localearn.energy.sources import Clock
from localearn.training.runtime import autocast, synchronize

SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}
WARM_UP = 5  # beyond those that a graph is recorded after
PERIODS = 50  # of a counter's updates, that a turn should last


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles over the turns.

    Attributes:
        median: the median.
        low: the lower quartile.
        high: the upper quartile.

    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of some values; of one value, that value thrice.

        Args:
            values: one at least.

        """
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Measured:
    """A rule's measurements at a point.

    Attributes:
        algo: the rule's name.
        step_s: seconds of the whole update.
        ratio: of a turn's time to the baseline's in the same turn.
        samples_per_s: rows in a second of updates.
        multiply_adds: of its matrix products in a step.
        limit_s: their time at the measured rate, in seconds.
        live_bytes: see `Workload`.
        one_pass: see `Workload`.
        captured: how the update was captured, see `Settings.capture`.
        joules_per_sample: gross, of the turns whose energy is known; None where no energy is measured.

    """

    algo: str
    step_s: Spread
    ratio: Spread
    samples_per_s: float
    multiply_adds: int
    limit_s: float
    live_bytes: int
    one_pass: bool
    captured: str = "off"
    joules_per_sample: Spread | None = None

    @property
    def share_of_limit(self) -> float:
        """The part of the step's time that its matrix products would take at the measured rate."""
        return self.limit_s / self.step_s.median


@dataclass(frozen=True)
class Bench:
    """The measurements of all rules at a point.

    Attributes:
        point: what was measured.
        parameters: the net's.
        multiply_adds_per_s: the device's matrix rate, the median over the turns.
        rules: each one's.
        energy: what the joules are of, and whether turns were too short for them; None where none are measured.

    """

    point: Point
    parameters: int
    multiply_adds_per_s: Spread
    rules: tuple[Measured, ...]
    energy: dict[str, Any] | None = None


def bench(
    workloads: Sequence[Workload],
    baseline: str,
    turns: int,
    turn_s: float,
    counter: Counter | None = None,
    *,
    clock: Clock | None = None,
    rate_of: Callable[[Point, float], float] | None = None,
) -> Bench:
    """Time every workload once a turn, each for at least `turn_s` seconds and one step; the first turn is discarded.

    Args:
        workloads: what to time, all at one point.
        baseline: the algorithm that the others' times are divided by.
        turns: how many count.
        turn_s: seconds of each workload a turn.
        counter: of the energy of what works, opened.
        clock: times the steps.
        rate_of: returns the device's matrix rate, given a point and the seconds to find it in; `matrix_rate` if None.

    """
    clock, rate_of = clock or Clock(), rate_of or matrix_rate
    point = workloads[0].point
    counts = {w.algo: (w.multiply_adds(), w.live_bytes()) for w in workloads}
    for workload in workloads:
        workload.capture()
        for _ in range(WARM_UP):
            workload.step()
    steps = {w.algo: _lasting(w.step, turn_s, point.device, clock) for w in workloads}
    rate, times, joules = [], {w.algo: [] for w in workloads}, {w.algo: [] for w in workloads}
    for turn in range(turns + 1):
        turn_rate = rate_of(point, turn_s)
        spent = {w.algo: _metered(w, steps[w.algo], counter, clock) for w in workloads}
        if turn:
            rate.append(turn_rate)
            for algo, (seconds, energy_j) in spent.items():
                times[algo].append(seconds)
                joules[algo] += [] if energy_j is None else [energy_j / point.batch]
    speed = Spread.of(rate)
    rules = tuple(
        _measured(w, counts[w.algo], times[w.algo], times[baseline], joules[w.algo], speed.median) for w in workloads
    )
    parameters = sum(p.numel() for p in workloads[0].net.parameters())
    shortest_s = min(steps[w.algo] * min(times[w.algo]) for w in workloads)
    return Bench(point, parameters, speed, rules, counter and _energy(counter, shortest_s))


def measured_energy(device: torch.device) -> Counter | None:
    """Return an opened counter of the device's energy, the hardware's own; None where it shows none.

    Args:
        device: the device.

    """
    try:
        counter = NvmlCounter(torch_uuid(device)) if device.type == "cuda" else RaplCounter("cpu")
        counter.open()
    except AbsentError:
        return None
    return counter


def _energy(counter: Counter, shortest_s: float) -> dict[str, Any]:
    period_s = counter.period_s
    return {
        **{name: getattr(counter, name) for name in ("part", "source", "label", "note", "period_s")},
        "too_short": period_s is not None and shortest_s < PERIODS * period_s,
    }


def _metered(workload: Workload, steps: int, counter: Counter | None, clock: Clock) -> tuple[float, float | None]:
    """Return the seconds and the joules of a step, the joules None where they are not known."""
    device, energy_j = workload.point.device, None
    synchronize(device)
    begin = _mark(counter)
    seconds = _timed(workload.step, steps, device, clock)
    end = _mark(counter)
    if counter and begin and end:
        with contextlib.suppress(LostError):
            energy_j = counter.joules(begin, end) / steps
    return seconds, energy_j


def _mark(counter: Counter | None) -> Mark | None:
    try:
        return counter and counter.read()
    except LostError:
        return None


def _measured(
    workload: Workload,
    counts: tuple[int, int],
    times: list[float],
    base: list[float],
    joules: list[float],
    rate: float,
) -> Measured:
    step_s, (products, live_bytes) = Spread.of(times), counts
    return Measured(
        algo=workload.algo,
        step_s=step_s,
        ratio=Spread.of([ours / theirs for ours, theirs in zip(times, base, strict=True)]),
        samples_per_s=workload.point.batch / step_s.median,
        multiply_adds=products,
        limit_s=products / rate,
        live_bytes=live_bytes,
        one_pass=workload.one_pass,
        captured=workload.captured,
        joules_per_sample=Spread.of(joules) if joules else None,
    )


def matrix_rate(
    point: Point, seconds: float, *, sizes: Sequence[int] | None = None, clock: Clock | None = None
) -> float:
    """Return the most multiply-adds a second that products of square matrices reach, of a few sizes.

    Args:
        point: for its device and precision.
        seconds: to find it in.
        sizes: of the matrices; None: those of the device.
        clock: times the products.

    """
    best = 0.0
    sizes, clock = sizes or SIZES[point.device.type], clock or Clock()
    for size in sizes:
        left, right = torch.randn(2, size, size, device=point.device)
        with autocast(point.device, point.precision), torch.no_grad():
            dtype = torch.mm(left[:2], right[:, :2]).dtype
            left, right = left.to(dtype), right.to(dtype)
        out = torch.empty_like(left)

        def product(left: Any = left, right: Any = right, out: Any = out) -> None:
            torch.mm(left, right, out=out)

        product()
        count = _lasting(product, seconds / len(sizes), point.device, clock)
        best = max(best, size**3 / _timed(product, count, point.device, clock))
    return best


def _lasting(work: Callable[[], None], seconds: float, device: torch.device, clock: Clock) -> int:
    """Return how many calls last at least so long, one at least.

    A call alone takes longer than one of many, whose queueing a device hides behind the one before it, so the calls of
    a tenth of the time are timed.
    """
    count = 1
    while (each_s := _timed(work, count, device, clock)) * count < seconds / 10:
        count = min(10 * count, math.ceil(seconds / 8 / each_s))
    return max(1, math.ceil(seconds / each_s))


def _timed(work: Callable[[], None], count: int, device: torch.device, clock: Clock) -> float:
    """Return the seconds that one call takes, the mean of `count` calls."""
    synchronize(device)
    begin_s = clock.now()
    for _ in range(count):
        work()
    synchronize(device)
    return (clock.now() - begin_s) / count
