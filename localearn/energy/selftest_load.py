"""Known loads for the checks of the meter: matrix products, here and in a second process.

As a program, `python -m localearn.energy.selftest_load cuda:0`, it is that second process: it loads a device until its
input ends.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol, final

import torch

BURST_S = 0.02  # a card refreshes its power about as often
SIZES = {"cuda": 4096, "cpu": 256}
NEIGHBOUR_START_LIMIT_S = 120.0
READY = "ready"


class Load(Protocol):
    """Work in bursts, each of about `BURST_S` seconds; the same work every time."""

    def burst(self) -> None:
        """Begin a burst; it may return while the burst runs, but not before the one before it has ended."""

    def finish(self) -> None:
        """Wait for the last burst."""


@final
class MatrixLoad:
    """Products of two square matrices in float32, on a card or on the CPU.

    A card is given the next burst before it has ended the last, so that it never waits for the host.

    Args:
        device: where the products are made.

    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        size = SIZES[device.type]
        self._factors = torch.randn(2, size, size, device=device) / size**0.5
        self._product = torch.empty(size, size, device=device)
        self._before: torch.cuda.Event | None = None
        self._products = 1
        for _ in range(3):  # the first one loads the library of kernels
            started_s = time.perf_counter()
            self.burst()
            self.finish()
        self._products = max(1, round(BURST_S / (time.perf_counter() - started_s)))

    def burst(self) -> None:
        """Begin a burst and wait for the one before it."""
        for _ in range(self._products):
            torch.mm(self._factors[0], self._factors[1], out=self._product)
        if self._device.type == "cuda":
            before, self._before = self._before, torch.cuda.Event()
            self._before.record(torch.cuda.current_stream(self._device))
            if before is not None:
                before.synchronize()

    def finish(self) -> None:
        """Wait for the last burst."""
        if self._before is not None:
            self._before.synchronize()
            self._before = None


@contextmanager
def loaded_by_another(device: str, python: str = sys.executable) -> Iterator[None]:
    """Have a second process load the device while the block runs.

    Args:
        device: torch's name of it.
        python: the interpreter that the process runs in.

    Raises:
        ChildProcessError: where it does not start.

    """
    command = [python, "-m", "localearn.energy.selftest_load", device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        limit = threading.Timer(NEIGHBOUR_START_LIMIT_S, process.kill)
        limit.start()
        try:
            if process.stdout.readline().strip() != READY:
                raise ChildProcessError(f"the second process did not come to load {device}")
            limit.cancel()
            yield
        finally:
            limit.cancel()
            process.stdin.close()
            process.wait()


def load_until_end(device: str, until: IO[str]) -> None:
    """Load the device until a stream ends.

    Args:
        device: torch's name of it.
        until: the stream.

    """
    load = MatrixLoad(torch.device(device))
    ended = threading.Event()

    def wait_for_end() -> None:
        until.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    print(READY, flush=True)
    while not ended.is_set():
        load.burst()
    load.finish()


if __name__ == "__main__":
    load_until_end(sys.argv[1], sys.stdin)
