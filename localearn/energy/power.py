"""Energy from power readings, for cards that have no energy counter."""

import threading
from collections.abc import Callable
from typing import final

from localearn.energy.clock import Clock
from localearn.energy.sources import LostError, Mark
from localearn.energy.ticker import Ticker

SAMPLE_S = 0.02


@final
class PowerIntegral:
    """The integral of power over time by the trapezoid rule, in joules.

    Every sample counts, one that equals the last as well: a constant 300 W is 300 J per second, not 0 J.
    """

    def __init__(self) -> None:
        self.energy_j = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, now_s: float, power_w: float) -> None:
        """Take a sample; its time must not lie before the last one's."""
        if self._last is not None:
            last_s, last_w = self._last
            self.energy_j += (now_s - last_s) * (last_w + power_w) / 2
        self._last = (now_s, power_w)

    def interrupt(self) -> None:
        """Forget the last sample, so that a gap is not bridged by a guess."""
        self._last = None


@final
class PowerSampler:
    """Samples a power source on a thread and at every reading.

    power_w: returns the power now; raises `LostError` where it cannot be read.
    clock: stamps the samples.
    """

    def __init__(self, power_w: Callable[[], float], clock: Clock) -> None:
        self._power_w = power_w
        self._clock = clock
        self._integral = PowerIntegral()
        self._gaps = 0
        self._lock = threading.Lock()
        self._ticker = Ticker(self._tick, SAMPLE_S, "localearn-power")

    def read(self) -> Mark:
        """Take a sample now and return the joules so far. Raises `LostError` where the source cannot be read."""
        with self._lock:
            try:
                power_w = self._power_w()
            except LostError:
                self._gaps += 1
                self._integral.interrupt()
                raise
            self._integral.add(self._clock.now(), power_w)
            return Mark(self._integral.energy_j, self._gaps)

    def _tick(self) -> None:
        try:
            self.read()
        except LostError:
            return  # the gap is counted: a window that spans it is discarded when it ends

    def close(self) -> None:
        """Stop the thread."""
        self._ticker.stop()
