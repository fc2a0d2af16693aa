"""Work on batches as a graph of the device: recorded once for a shape of batch, then replayed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch

from localearn.data import Batch

T = TypeVar("T")

WARM_UP = (
    3  # times that the work is done before it is recorded, as torch asks for: in these libraries make what they keep
)


class Graph(Protocol):
    """What records the work of a device and does it again."""

    def capture(self, work: Callable[[], Any]) -> Any:
        """Record the work, without doing it; return what every replay overwrites."""
        ...

    def replay(self) -> None:
        """Do the recorded work, on the same memory."""
        ...

    def warming_up(self) -> AbstractContextManager[Any]:
        """Return the context in which work is done that shall be recorded later."""
        ...


class CudaGraph:
    """torch's own, with the memory that it keeps to itself."""

    def __init__(self, device: torch.device):
        self.device = device
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], T]) -> T:
        """Record the work, without doing it."""
        with torch.cuda.graph(self._graph):
            return work()

    def replay(self) -> None:
        """Queue the recorded work."""
        self._graph.replay()

    def warming_up(self) -> AbstractContextManager[Any]:
        """Return a stream of its own."""
        return _SideStream(self.device)


class _SideStream:
    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)
        self._context = torch.cuda.stream(self._stream)

    def __enter__(self) -> None:
        self._stream.wait_stream(torch.cuda.current_stream())
        self._context.__enter__()

    def __exit__(self, *exc: Any) -> None:
        self._context.__exit__(*exc)
        torch.cuda.current_stream().wait_stream(self._stream)


@dataclass
class _Recording:
    """What is there for a shape. batch: the memory that the graph reads; given: what it overwrites."""

    warm: int = 0
    graph: Graph | None = None
    batch: Batch | None = None
    given: Any = None
    numbers: tuple[float, ...] = ()


class Recorded(Generic[T]):
    """Does work on a batch by replaying a graph of it, for batches of the first so many shapes.

    The first WARM_UP times for a shape it is done without a graph; then it is recorded, and again whenever numbers have
    changed that a graph holds as they were. What is returned is overwritten by the next call for the same shape. Where
    the work cannot be recorded `refused` is called with torch's reason, once, and all is done as ever.

    recorded: whether there has been a graph.
    """

    def __init__(
        self,
        work: Callable[[Batch], T],
        graph: Callable[[], Graph],
        refused: Callable[[RuntimeError], None],
        shapes: int = 1,
    ):
        self._work, self._make, self._refused, self._shapes = work, graph, refused, shapes
        self._kept: dict[tuple[torch.Size, torch.Size], _Recording] = {}
        self._possible = True
        self.recorded = False

    def __call__(self, batch: Batch, numbers: tuple[float, ...] = ()) -> T:
        """Do the work on a batch. numbers: what it takes from outside of tensors."""
        shape = (batch.x.shape, batch.y.shape)
        if len(self._kept) < self._shapes:
            self._kept.setdefault(shape, _Recording())
        kept = self._kept.get(shape)
        if kept is None or not self._possible:
            return self._work(batch)
        if kept.warm < WARM_UP:
            kept.warm += 1
            with self._make().warming_up():
                return self._work(batch)
        if kept.graph is None or kept.numbers != numbers:
            self._record(kept, batch, numbers)
        if kept.graph is None or kept.batch is None:
            return self._work(batch)
        kept.batch.x.copy_(batch.x)
        kept.batch.y.copy_(batch.y)
        kept.graph.replay()
        return kept.given

    def close(self) -> None:
        """Drop the graphs and their memory."""
        self._kept = {}

    def _record(self, kept: _Recording, batch: Batch, numbers: tuple[float, ...]) -> None:
        kept.graph = None  # an older one's memory goes first
        own = kept.batch or replace(batch, x=batch.x.clone(), y=batch.y.clone())
        graph = self._make()
        try:
            kept.given = graph.capture(lambda: self._work(own))
        except RuntimeError as error:  # torch's way to say that something cannot be recorded
            self._possible = self.recorded = False
            self._refused(error)
            return
        kept.graph, kept.batch, kept.numbers, self.recorded = graph, own, numbers, True
