"""Turns of threads on torch's global generators, of which a process has one for each device."""

import collections
import contextlib
import os
import threading
from collections.abc import Iterator

import torch

_States = dict[torch.device, torch.Tensor]


@contextlib.contextmanager
def own_random_numbers(device: torch.device | None = None) -> Iterator[None]:
    """Hold torch's global generators exclusively inside the block, and restore their states afterwards.

    Other threads that enter such a block wait until its end, or until `give_way`. Code that draws or seeds outside of
    such a block does not wait: build what a thread needs before other threads start their runs.

    Args:
        device: A device whose generator is used, in addition to the CPU's and those of every CUDA device in use.

    """
    if _queue.held_here:  # nested: a run in another's callback, or in what seeds the generators for it
        before = _states(device)
        _queue.callers = before | _queue.callers
        try:
            yield
        finally:
            _set_states(before)
        return
    interrupted = _queue.enter()
    try:
        if interrupted is not None:
            raise interrupted
        _queue.callers = _states(device)
        try:
            yield
        finally:
            _set_states(_queue.callers)
    finally:
        _queue.leave()


def give_way() -> None:
    """Let a thread that waits for the generators use them, if there is one, and continue with this thread's states.

    Call it between batches, inside `own_random_numbers`; elsewhere it does nothing.
    """
    if not _queue.contended or not _queue.held_here:
        return
    devices = list(_queue.callers)
    states = _states(*devices)
    _set_states(_queue.callers)
    _queue.leave()
    interrupted = _queue.enter()
    _queue.callers = _states(*devices)
    _set_states(states)
    if interrupted is not None:
        raise interrupted


def _states(*devices: torch.device | None) -> _States:
    """Return the states of the generators of the CPU, of the devices, and of every CUDA device in use."""
    of_cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    every = [torch.device("cpu"), *(torch.device("cuda", n) for n in of_cuda)]
    for device in devices:
        if device is not None and device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if device is not None and device.type in ("cuda", "mps"):
            every.append(device)
    return {device: _state(device) for device in dict.fromkeys(every)}


def _state(device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def _set_states(states: _States) -> None:
    for device, state in states.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        elif device.type == "mps":
            torch.mps.set_rng_state(state)
        else:
            torch.set_rng_state(state)


class _Queue:
    """A fair lock: threads acquire it in the order of their requests, so that none of them starves.

    callers: The generators' states when the lock was acquired, restored for code that draws outside of the runs.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: collections.deque[threading.Lock] = collections.deque()
        self._holder: int | None = None
        self.callers: _States = {}

    @property
    def held_here(self) -> bool:
        """Return whether this thread holds the lock."""
        return self._holder == threading.get_ident()

    @property
    def contended(self) -> bool:
        """Return whether another thread waits for the lock."""
        return bool(self._waiting)

    def enter(self) -> BaseException | None:
        """Acquire the lock; return what Ctrl-C raised meanwhile, for the caller to raise once it holds the lock."""
        interrupted = None
        with self._guard:
            ready = threading.Lock()
            if self._holder is not None:
                ready.acquire()
                self._waiting.append(ready)
            self._holder = self._holder or threading.get_ident()
        while not self.held_here:
            try:
                ready.acquire()
                self._holder = threading.get_ident()
            except BaseException as error:
                interrupted = error
        return interrupted

    def leave(self) -> None:
        """Release the lock to the thread that has waited longest."""
        with self._guard:
            if self._waiting:
                self._holder = -1  # no thread's, until the next one has woken up
                self._waiting.popleft().release()
            else:
                self._holder = None


_queue = _Queue()


def _reset_after_fork() -> None:
    # A forked child has none of its parent's threads, which could never release the lock.
    global _queue
    _queue = _Queue()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
