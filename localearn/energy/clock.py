"""The one clock that stamps every reading of a meter."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """A monotonic clock and its way to wait; a test passes one that it moves by hand.

    now: return seconds since a fixed but unnamed moment.
    sleep: wait for so many seconds.
    """

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
