"""Capture of training steps and of validation: as CUDA graphs, or compiled by torch.compile.

`captured` and `captured_measure` choose by `Settings.capture`. The last functions keep an optimizer's state usable with
and without graphs.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from localearn.data import Batch
from localearn.errors import UserError
from localearn.training.step import Step, Update

_log = logging.getLogger(__name__)
T = TypeVar("T")
WARM_UP = 3  # executions before the work is recorded, as torch requires: libraries allocate their caches then
SHAPES = 2  # of a validation's batches: the full ones, and the last


def captured(update: Update, mode: str, device: torch.device) -> Step:
    """Return an update as `Settings.capture` asks for it.

    Args:
        update: The eager update, returned itself where it is not to be captured, or cannot be.
        mode: "auto", "graph", "compile" or "off".
        device: The run's device.

    """
    if mode == "compile":
        return CompiledUpdate(update)
    if not _by_graph(mode, device):
        if mode == "graph":
            why = f"capture=graph needs a CUDA device, and this is a {device.type}"
            _tell(update, "is trained without a graph", why)
        return update
    return GraphUpdate(update, device)


def captured_measure(measure: Callable[[Batch], T], mode: str, device: torch.device) -> Callable[[Batch], T]:
    """Return the measure of a validation batch as `Settings.capture` asks for it.

    Args:
        measure: The eager measure; compiled blocks need no more.
        mode: "auto", "graph", "compile" or "off".
        device: The run's device.

    """
    if not _by_graph(mode, device):
        return measure

    def refused(error: RuntimeError) -> None:
        _log.warning("validation is done without a graph: %s", _line(error))

    return Recorded(measure, lambda: graph_of(device), refused, SHAPES)


def _by_graph(mode: str, device: torch.device) -> bool:
    on_card = device.type == "cuda" or graph_of is not CudaGraph
    return on_card and (mode == "graph" or (mode == "auto" and device.type == "cuda"))


class GraphUpdate:
    """An update that is replayed from a CUDA graph for batches of the first one's size, and executed for others.

    It is recorded again whenever a schedule has changed a number that the optimizer holds: a learning rate, a weight
    decay, a momentum. The weights are those without a graph, to the device's rounding.

    Args:
        update: The update to record.
        device: The CUDA device.

    """

    def __init__(self, update: Update, device: torch.device):
        self.update = update
        self._recorded = Recorded(
            update, lambda: graph_of(device), lambda error: _tell(update, "is trained without a graph", error)
        )
        keep_on_device(update.optimizer)

    @property
    def kind(self) -> str:
        """Return "graph" where one was recorded, else "off"."""
        return "graph" if self._recorded.recorded else "off"

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on a batch; return the rule's metrics, which the next step overwrites."""
        return self._recorded(batch, tuple(_numbers(self.update.optimizer)))

    def close(self) -> None:
        """Drop the graph and its memory."""
        self._recorded.close()
        self.update.close()


def _numbers(optimizer: torch.optim.Optimizer) -> Iterator[float]:
    """Yield the numbers of an optimizer's groups, which a graph of its step holds as constants.

    Not those in tensors, such as a learning rate: the graph reads them itself, and the host would have to wait for
    them.
    """
    for group in optimizer.param_groups:
        for value in group.values():
            for number in value if isinstance(value, tuple) else (value,):  # Adam's betas are two
                if isinstance(number, int | float):
                    yield number


class CompiledUpdate:
    """An update whose blocks and optimizer step torch.compile compiles; the same weights, to rounding.

    Where the first update fails to compile, a line is logged, once, and training continues without.

    Args:
        update: The update to compile; its net's blocks and its optimizer are changed until `close`.

    """

    def __init__(self, update: Update):
        self.update, self.kind = update, "compile"
        self._blocks = list(update.trainer.net.blocks)
        self._step = update.optimizer.step
        for block in self._blocks:
            block.compile()
        update.optimizer.step = torch.compile(update.optimizer.step)
        self._tried = False

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on a batch; return the rule's metrics, scalars by name."""
        if self._tried:
            return self.update(batch)
        self._tried = True
        try:
            return self.update(batch)
        except UserError:
            raise
        except Exception as error:  # whatever a compiler, or a compiler's compiler, may raise
            self._undo()
            self.kind = "off"
            _tell(self.update, "is not compiled", error)
            return self.update(batch)

    def close(self) -> None:
        """Restore blocks and optimizer."""
        self._undo()
        self.update.close()

    def _undo(self) -> None:
        for block in self._blocks:
            block._compiled_call_impl = None
        self.update.optimizer.step = self._step


def _tell(update: Update, what: str, why: object) -> None:
    _log.warning("%s %s: %s", type(update.trainer).__name__, what, _line(why))


def _line(why: object) -> str:
    return (str(why) or type(why).__name__).splitlines()[0]


class Graph(Protocol):
    """The interface of a device's recorded work."""

    def capture(self, work: Callable[[], Any]) -> Any:
        """Record the work, without executing it; return its result, which every replay overwrites."""
        ...

    def replay(self) -> None:
        """Execute the recorded work again, on the same memory."""
        ...

    def warming_up(self) -> AbstractContextManager[Any]:
        """Return the context in which work runs that shall be recorded later."""
        ...


@dataclass
class _Recording:
    """The graph of one batch shape. batch: the memory that the graph reads; given: the result that it overwrites."""

    warm: int = 0
    graph: Graph | None = None
    batch: Batch | None = None
    given: Any = None
    numbers: tuple[float, ...] = ()


class Recorded(Generic[T]):
    """Work on batches that is replayed from a graph, for batches of the first so many shapes.

    The first WARM_UP times for a shape it is executed without a graph; then it is recorded, and recorded again whenever
    numbers have changed that a graph holds as constants. The result is overwritten by the next call for the same shape.
    Where the work cannot be recorded it is executed without a graph from then on.

    Args:
        work: The work on a batch.
        graph: Makes an empty graph.
        refused: Called once, with torch's error, where the work cannot be recorded.
        shapes: The number of batch shapes that get a graph, 1 or more; others are executed without one.

    Attributes:
        recorded: Whether there has been a graph.

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
        """Do the work on a batch, and return its result.

        Args:
            batch: The batch; its x and y are copied into the graph's memory.
            numbers: The numbers outside of tensors that the work reads, such as a learning rate.

        """
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


class CudaGraph:
    """A torch.cuda.CUDAGraph with its own memory pool.

    Args:
        device: The CUDA device.

    """

    def __init__(self, device: torch.device):
        self.device = device
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], T]) -> T:
        """Record the work, without executing it; return its result, which every replay overwrites."""
        with torch.cuda.graph(self._graph):
            return work()

    def replay(self) -> None:
        """Queue the recorded work."""
        self._graph.replay()

    def warming_up(self) -> AbstractContextManager[Any]:
        """Return the context of a side stream, as torch requires before a capture."""
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


graph_of: Callable[[torch.device], Graph] = CudaGraph


def keep_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Make an optimizer count its steps on the device, as a CUDA graph needs.

    Args:
        optimizer: Changed in place: `capturable` groups, and `step` of each state on its parameter's device.

    """
    for group in optimizer.param_groups:
        if "capturable" in group and all(p.is_cuda for p in group["params"]):
            group["capturable"] = True
        for p in (p for p in group["params"] if p.is_cuda):
            step = optimizer.state.get(p, {}).get("step")
            if isinstance(step, Tensor):
                optimizer.state[p]["step"] = step.to(p.device)


def on_any_device(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state_dict that can be loaded where there are no graphs.

    Args:
        state: The `state_dict()`, not changed.

    """
    groups = [group | ({"capturable": False} if "capturable" in group else {}) for group in state["param_groups"]]
    return state | {"param_groups": groups}
