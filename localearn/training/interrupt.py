"""Early ends of a run: the flag that a signal sets, and the exceptions that the loop raises."""

import signal
from types import FrameType
from typing import Any


class Interrupt:
    """Record the first SIGINT or SIGTERM in a flag that the loop reads between batches; the second stops at once.

    A context manager, which restores the former handlers on exit. In other threads than the main one it does nothing.

    Attributes:
        signum: The number of the signal that was received, or None.

    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._handle)
        except ValueError:  # raised in any thread but the main one
            self._previous.clear()
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum


class Interrupted(Exception):
    """Raised where a signal ended the run.

    Args:
        signum: The number of the signal.

    """

    def __init__(self, signum: int):
        super().__init__(f"interrupted by signal {signum}")
        self.signum = signum


class Stopped(Exception):
    """Raised where a callback stopped the run; the message is its reason."""


class Diverged(Exception):
    """Raised where a loss is not finite."""
