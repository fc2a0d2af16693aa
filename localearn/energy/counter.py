"""What the meter asks of a source: a counter of energy for one part of the machine."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from localearn.energy.clock import Clock

Part = Literal["gpu", "cpu", "dram"]
Label = Literal["measured", "estimated", "absent"]

POLL_S = 0.002  # a card's counter moves every 20 to 100 ms; a tenth of that tells its moves apart


class AbsentError(Exception):
    """A source that is not there; the message says why and becomes the part's note in the record."""


class LostError(Exception):
    """A reading that cannot be trusted; the message is the flag of the window that it spoils."""


class Mark(NamedTuple):
    """A reading.

    value: of the counter, in its own unit.
    life: how often the counter has begun anew or been unreadable; marks of two lives have no difference.
    """

    value: float
    life: int = 0


class Counter(ABC):
    """The energy that one part of the machine has used, as a value that only grows.

    A final class sets these fields:
        part, source, label: whose energy it is, who says so and how well it is known.
        note: what the reader of the record must know about this source.
        period_s: how often the value moves; None where that bounds no error, as in an estimate.
        includes_idle: whether the value grows on an idle machine too, so that idle power can be taken off.
    """

    part: Part
    source: str
    label: Literal["measured", "estimated"]
    note: str
    period_s: float | None
    includes_idle: bool

    @abstractmethod
    def open(self) -> None:
        """Start the source. Raises `AbsentError` with the reason where it is not there."""

    @abstractmethod
    def read(self) -> Mark:
        """Return the counter's value now. Raises `LostError` where it cannot be read."""

    @abstractmethod
    def joules(self, begin: Mark, end: Mark) -> float:
        """Return the energy between two marks, in joules. Raises `LostError` where it is not known."""

    @abstractmethod
    def close(self) -> None:
        """Release what `open` took; may be called twice, and without `open`."""

    def prefetch(self) -> None:  # noqa: B027 - a hook that few sources need
        """Begin a slow start on a thread. Called after idle power was measured, which it would disturb."""

    def ready(self) -> None:  # noqa: B027 - a hook that few sources need
        """Wait until what `prefetch` began is done. Raises `AbsentError` where that failed."""

    def moving(self) -> float | None:
        """Return the raw value whose moves show the update period, None where the period is known already."""
        return None

    def settle(self, period_s: float | None) -> None:  # noqa: B027 - a hook that few sources need
        """Take the update period that was seen while idling, None where the raw value moved too rarely to tell."""

    def power_w(self) -> float | None:
        """Return the power that the source shows right now, None where it shows none."""
        return None

    def look(self) -> set[str]:
        """Log the conditions of the moment and return the flags that they put on the window that just ended."""
        return set()

    def conditions(self) -> dict[str, Any]:
        """Return what `look` has logged so far, ready for JSON."""
        return {}


@dataclass(slots=True)
class _Moves:
    """The moves of one raw value: `first` and `last` are (time, mark) at a move, `count` the moves after the first."""

    raw: float
    first: tuple[float, Mark] | None = None
    last: tuple[float, Mark] | None = None
    count: int = field(default=0)

    def see(self, now_s: float, raw: float, counter: Counter) -> None:
        if raw == self.raw:
            return
        self.raw = raw
        self.last = (now_s, counter.read())
        if self.first is None:
            self.first = self.last
        else:
            self.count += 1


def idle_power_w(counters: list[Counter], idle_s: float, clock: Clock) -> dict[Part, float | None]:
    """Leave the machine alone for `idle_s` seconds and return each part's mean power, None where it was lost.

    A counter that moves every 100 ms, read at both ends of one second, is off by up to a tenth. So where a counter
    shows its raw value the power is taken between two of its moves, and their mean distance settles its update period.
    """
    begin: dict[Part, tuple[float, Mark]] = {}
    moves: dict[Part, _Moves] = {}
    power: dict[Part, float | None] = {}
    watched = list(counters)

    def drop(counter: Counter) -> None:
        watched.remove(counter)
        power[counter.part] = None

    for counter in counters:
        try:
            begin[counter.part] = (clock.now(), counter.read())
            if (raw := counter.moving()) is not None:
                moves[counter.part] = _Moves(raw)
        except LostError:
            drop(counter)
    end_s = clock.now() + idle_s
    while (left_s := end_s - clock.now()) > 0:
        clock.sleep(min(left_s, POLL_S) if moves else left_s)
        for counter in [c for c in watched if c.part in moves]:
            try:
                if (raw := counter.moving()) is not None:
                    moves[counter.part].see(clock.now(), raw, counter)
            except LostError:
                drop(counter)
    for counter in list(watched):
        try:
            seen = moves.get(counter.part)
            first, last = begin[counter.part], (clock.now(), counter.read())
            if seen is not None:
                if seen.first and seen.last and seen.count >= 2:
                    first, last = seen.first, seen.last
                    counter.settle((last[0] - first[0]) / seen.count)
                else:
                    counter.settle(None)
            power[counter.part] = counter.joules(first[1], last[1]) / (last[0] - first[0])
        except LostError:
            drop(counter)
    return power
