"""Known loads: a device that multiplies matrices all the time, half of the time, or not at all."""

import time
from typing import Protocol, final

import torch

BURST_S = 0.02  # a card refreshes its power about as often
SIZES = {"cuda": 4096, "cpu": 256}
HALF_CYCLE_S = 0.1


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
