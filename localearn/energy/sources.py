"""What the meter asks of a source: a counter of energy for one part of the machine."""

import os
import socket
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, NamedTuple

Part = Literal["gpu", "cpu", "dram"]
Label = Literal["measured", "estimated", "absent"]


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

    def settle(self, period_s: float) -> None:  # noqa: B027 - a hook that few sources need
        """Take the update period that was seen while idling."""

    def power_w(self) -> float | None:
        """Return the power that the source shows right now, None where it shows none."""
        return None

    def look(self) -> set[str]:
        """Log the conditions of the moment and return the flags that they put on the window that just ended."""
        return set()

    def conditions(self) -> dict[str, Any]:
        """Return what `look` has logged so far, ready for JSON."""
        return {}

    def counted(self) -> str:
        """Return a name of what is counted, of all machines: of two counters with one name only one may be added."""
        return f"process {os.getpid()} of {machine()}"


def machine() -> str:
    """Return a name that no other running machine has; containers of a machine have the same."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()
