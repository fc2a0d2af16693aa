"""The interface of a source of energy, its clock, and what sources share: sampled power, idle power, a thread."""

import os
import socket
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

SAMPLE_S = 0.02
POLL_S = 0.002  # a card's counter moves every 20 to 100 ms; a tenth of that separates its moves

Part = Literal["gpu", "cpu", "dram"]
Label = Literal["measured", "estimated", "absent"]


class AbsentError(Exception):
    """A source that is not available; the message is the reason, and becomes the part's note in the record."""


class LostError(Exception):
    """A reading that cannot be trusted; the message is the flag of the window that it spoils."""


class Mark(NamedTuple):
    """A reading of a counter.

    Args:
        value: the counter's, in its own unit.
        life: how often the counter was reset or unreadable; marks of two lives have no difference.

    """

    value: float
    life: int = 0


class Counter(ABC):
    """The energy that one part of the machine has used, as a value that only grows.

    A subclass for a meter of your own implements `open`, `read`, `joules` and `close`; `Meter(sources=[...])` takes it.

    Attributes:
        part: whose energy it is: "gpu", "cpu" or "dram".
        source: the name of the source, which the record has.
        label: how well the energy is known: "measured" or "estimated".
        note: what the reader of the record must know about this source.
        period_s: how often the value moves; None where that bounds no error, as in an estimate.
        includes_idle: whether the value grows on an idle machine too, so that idle power can be subtracted.
        integrates_power: whether the value is power readings integrated, and no counter of the hardware's.

    """

    part: Part
    source: str
    label: Literal["measured", "estimated"]
    note: str
    period_s: float | None
    includes_idle: bool
    integrates_power: bool = False

    @abstractmethod
    def open(self) -> None:
        """Start the source.

        Raises:
            AbsentError: where it is not there, with the reason.

        """

    @abstractmethod
    def read(self) -> Mark:
        """Return the counter's value now.

        Raises:
            LostError: where it cannot be read.

        """

    @abstractmethod
    def joules(self, begin: Mark, end: Mark) -> float:
        """Return the energy between two marks, in joules.

        Args:
            begin: what `read` returned first.
            end: what it returned later.

        Raises:
            LostError: where the energy is not known.

        """

    @abstractmethod
    def close(self) -> None:
        """Release what `open` took; may be called twice, and without `open`."""

    def prefetch(self) -> None:  # noqa: B027 - a hook that few sources need
        """Begin a slow start on a thread. Called after idle power was measured, which it would disturb."""

    def ready(self) -> None:  # noqa: B027 - a hook that few sources need
        """Wait until what `prefetch` began is done.

        Raises:
            AbsentError: where that failed.

        """

    def moving(self) -> float | None:
        """Return the raw value whose moves show the update period, None where the period is known already."""
        return None

    def settle(self, period_s: float) -> None:  # noqa: B027 - a hook that few sources need
        """Set the update period that was seen while idling.

        Args:
            period_s: seconds between two moves of the value.

        """

    def power_w(self) -> float | None:
        """Return the power that the source shows right now, None where it shows none."""
        return None

    def sample_conditions(self) -> set[str]:
        """Log the conditions of the moment and return the flags that they put on the window that just ended."""
        return set()

    def look(self) -> set[str]:
        """Call `sample_conditions`; deprecated, and gone in the next release."""
        warnings.warn("Counter.look is deprecated: use sample_conditions", FutureWarning, stacklevel=2)
        overridden = type(self).sample_conditions is type(self).look  # and calls this one by super()
        return set() if overridden else self.sample_conditions()

    def __init_subclass__(cls, **options: Any) -> None:
        """Register a subclass's `look`, the method's former name, as its `sample_conditions`."""
        super().__init_subclass__(**options)
        if "look" in vars(cls) and "sample_conditions" not in vars(cls):
            warnings.warn(
                f"{cls.__name__}.look: the method of a Counter is named sample_conditions now",
                FutureWarning,
                stacklevel=2,
            )
            cls.sample_conditions = cls.look

    def conditions(self) -> dict[str, Any]:
        """Return what `sample_conditions` has logged so far, ready for JSON."""
        return {}

    def counted(self) -> str:
        """Return the name of what is counted, unique among machines: of two counters with one name one is added."""
        return f"process {os.getpid()} of {machine()}"


def machine() -> str:
    """Return a name that no other running machine has; containers of a machine have the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


@dataclass(frozen=True, slots=True)
class Clock:
    """A monotonic clock and its way to wait; a test passes one that it moves itself.

    Args:
        now: returns seconds since a fixed but unnamed moment.
        sleep: waits for so many seconds.

    """

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


def idle_power_w(counters: list[Counter], idle_s: float, clock: Clock) -> dict[Part, float | None]:
    """Return each part's mean power while the machine is left alone, None where a reading was lost.

    A counter that moves every 100 ms, read at both ends of one second, is off by up to a tenth. So where a counter
    shows its raw value the power is taken between two of its moves, and their mean distance settles its update period.

    Args:
        counters: open ones, one a part.
        idle_s: how long to wait, in seconds.
        clock: stamps the readings.

    Returns:
        Watts by part.

    """
    watches = [_Watch(counter, clock) for counter in counters]
    slow = [watch for watch in watches if watch.raw is not None]
    end_s = clock.now() + idle_s
    while (left_s := end_s - clock.now()) > 0:
        clock.sleep(min(left_s, POLL_S) if slow else left_s)
        for watch in slow:
            watch.poll()
    return {watch.counter.part: watch.power_w() for watch in watches}


@dataclass(slots=True)
class _Moment:
    now_s: float
    mark: Mark


class _Watch:
    """Watches one counter from here on; `raw` is None where it does not show its moves."""

    def __init__(self, counter: Counter, clock: Clock) -> None:
        self.counter = counter
        self.raw: float | None = None
        self._clock = clock
        self._lost = False
        self._moves: list[_Moment] = []
        try:
            self._begin = self._moment()
            self.raw = counter.moving()
        except LostError:
            self._lost = True

    def _moment(self) -> _Moment:
        return _Moment(self._clock.now(), self.counter.read())

    def poll(self) -> None:
        """Note a move, if there was one since the last poll."""
        try:
            raw = self.counter.moving()
            if raw != self.raw:
                self.raw = raw
                self._moves.append(self._moment())
        except LostError:
            self._lost = True

    def power_w(self) -> float | None:
        """Return the mean power, between the first and the last move where there were three or more."""
        if self._lost:
            return None
        try:
            first, last, gaps = self._begin, self._moment(), len(self._moves) - 1
            if gaps >= 2:
                first, last = self._moves[0], self._moves[-1]
                self.counter.settle((last.now_s - first.now_s) / gaps)
            return self.counter.joules(first.mark, last.mark) / (last.now_s - first.now_s)
        except LostError:
            return None


@final
class PowerIntegral:
    """The integral of power over time by the trapezoid rule, in joules, over samples P_i at times t_i.

        E = sum_i (t_i - t_{i-1}) (P_i + P_{i-1}) / 2

    Every sample counts, one that equals the last as well: a constant 300 W is 300 J per second, not 0 J.
    """

    def __init__(self) -> None:
        self.energy_j = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, now_s: float, power_w: float) -> None:
        """Add a sample.

        Args:
            now_s: its time in seconds, not before the last one's.
            power_w: the power then, in watts.

        """
        if self._last is not None:
            last_s, last_w = self._last
            self.energy_j += (now_s - last_s) * (last_w + power_w) / 2
        self._last = (now_s, power_w)

    def interrupt(self) -> None:
        """Forget the last sample, so that a gap is not bridged by a guess."""
        self._last = None


@final
class PowerSampler:
    """Samples of a power source, taken on a thread and at every reading, and integrated.

    Args:
        power_w: returns the power now, in watts; raises `LostError` where it cannot be read.
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
        """Take a sample now and return the joules so far.

        Raises:
            LostError: where the source cannot be read.

        """
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


@final
class Ticker:
    """A thread that calls a function again and again until it is stopped; it dies with the process.

    Args:
        tick: the function.
        interval_s: seconds between two calls.
        name: the thread's.

    """

    def __init__(self, tick: Callable[[], None], interval_s: float, name: str) -> None:
        self._tick = tick
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._tick()

    def stop(self) -> None:
        """End the calls and wait for the one under way."""
        self._stopped.set()
        self._thread.join()
