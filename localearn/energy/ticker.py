"""A function that is called again and again, on a thread of its own."""

import threading
from collections.abc import Callable
from typing import final


@final
class Ticker:
    """Calls `tick` every `interval_s` seconds until it is stopped; the thread dies with the process."""

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
