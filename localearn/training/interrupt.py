import signal
from types import FrameType
from typing import Any


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a flag that the loop reads between batches; the second stops at once.

    `signum` is the signal that came, or None. Handlers are only set in the main thread, and put back on exit.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        try:
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._note)
        except ValueError:  # not in the main thread, where a signal is somebody else's business
            self._previous.clear()
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
