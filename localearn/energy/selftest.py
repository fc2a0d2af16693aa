"""Windows of known load, metered as a training run's are, with the power beside them where the source shows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch

from localearn.energy.check.load import HALF_CYCLE_S, Load
from localearn.energy.clock import Clock
from localearn.energy.meter import Meter
from localearn.energy.power import PowerIntegral
from localearn.energy.sources import AbsentError, Counter


@dataclass(frozen=True, slots=True)
class Span:
    """A metered window and what the meter recorded of it.

    begin_s, end_s: by the bench's clock. energy_j: None where the meter does not know it.
    integral_j: the power readings of the window, integrated; None where the source shows no power.
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
    """A load and the counter under check. Every window is a `Meter`'s own, as in a training run.

    device: where the load runs; a card is synchronised at both ends of a window.
    counter: of the part that the load heats. It is opened here and again for each window, and keeps its update period.
    load: what to run. clock: stamps all readings. synchronize: waits for the device, see `Meter`.
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
        """The power limit that the source tells, None where it tells none."""
        seen = self.conditions.get("power_limit_w")
        return None if seen is None else seen["max"]

    def idle(self, seconds: float) -> None:
        """Measure idle power as a run does before it trains, and time the counter's updates.

        An estimate holds no idle power that could be taken off, so a window without work stands in for it. Raises
        `AbsentError` where the source is not there.
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
        """Load the device until it is warm and return how many bursts a second it does."""
        bursts, begin_s = 0, self._clock.now()
        while self._clock.now() - begin_s < seconds:
            self._load.burst()
            bursts += 1
        self._load.finish()
        return bursts / (self._clock.now() - begin_s)

    def steady(self, title: str, bursts: int) -> Span:
        """Meter so many bursts, one after the other."""

        def work(integral: PowerIntegral) -> None:
            for _ in range(bursts):
                self._load.burst()
                self._sample(integral)

        return self._span(title, work)

    def half(self, title: str, seconds: float) -> Span:
        """Meter bursts that take turns with rests of their own length."""

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
