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
WARM_UP = 3  # eager calls before a capture, as torch requires: libraries allocate their caches in them
SHAPES = 2  # of a validation's batches: the full ones, and the last


def captured(update: Update, mode: str, device: torch.device) -> Step:
    """Return an update, captured as `Settings.capture` says.

    Args:
        update: The eager update, which is returned itself where it is not to be captured, or cannot be.
        mode: "auto", "graph", "compile" or "off".
        device: The run's device.

    """
    if mode == "compile":
        return CompiledUpdate(update)
    if not _uses_graph(mode, device):
        if mode == "graph":
            why = f"capture=graph needs a CUDA device, and this is a {device.type}"
            _warn(update, "is trained without a graph", why)
        return update
    return GraphUpdate(update, device)


def captured_measure(measure: Callable[[Batch], T], mode: str, device: torch.device) -> Callable[[Batch], T]:
    """Return the measure of a validation batch, captured as `Settings.capture` says.

    Args:
        measure: The eager measure; with compiled blocks it is returned as it is.
        mode: "auto", "graph", "compile" or "off".
        device: The run's device.

    """
    if not _uses_graph(mode, device):
        return measure

    def refused(error: RuntimeError) -> None:
        _log.warning("validation is done without a graph: %s", _first_line(error))

    return GraphedCallable(measure, lambda: make_graph(device), refused, SHAPES)


def _uses_graph(mode: str, device: torch.device) -> bool:
    on_cuda = device.type == "cuda" or make_graph is not CudaGraph
    return on_cuda and (mode == "graph" or (mode == "auto" and device.type == "cuda"))


class GraphUpdate:
    """An update that is replayed from a CUDA graph for batches of the first one's shape, and eager for others.

    It is captured again whenever a schedule has changed a number of the optimizer: a learning rate, a weight decay, a
    momentum. The weights are those without a graph, to the device's rounding.

    Args:
        update: The update to capture.
        device: The CUDA device.

    """

    def __init__(self, update: Update, device: torch.device):
        self.update = update
        self._graphed = GraphedCallable(
            update, lambda: make_graph(device), lambda error: _warn(update, "is trained without a graph", error)
        )
        keep_on_device(update.optimizer)

    @property
    def kind(self) -> str:
        """Return "graph" where one was captured, else "off"."""
        return "graph" if self._graphed.captured else "off"

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on a batch; return the rule's metrics, which the next step overwrites."""
        return self._graphed(batch, tuple(_constants(self.update.optimizer)))

    def close(self) -> None:
        """Drop the graph and its memory."""
        self._graphed.close()
        self.update.close()


def _constants(optimizer: torch.optim.Optimizer) -> Iterator[float]:
    """Yield the numbers of an optimizer's groups, which are constants in a graph of its step.

    Numbers in tensors, such as a learning rate, are left out: the graph reads them from memory, and the host would have
    to wait for them.
    """
    for group in optimizer.param_groups:
        for value in group.values():
            for number in value if isinstance(value, tuple) else (value,):  # Adam's betas are two
                if isinstance(number, int | float):
                    yield number


class CompiledUpdate:
    """An update whose blocks and optimizer step torch.compile compiles; the same weights, to rounding.

    Where the first update fails to compile, a warning is logged, and training continues without.

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
            _warn(self.update, "is not compiled", error)
            return self.update(batch)

    def close(self) -> None:
        """Restore blocks and optimizer."""
        self._undo()
        self.update.close()

    def _undo(self) -> None:
        for block in self._blocks:
            block._compiled_call_impl = None
        self.update.optimizer.step = self._step


def _warn(update: Update, what: str, why: object) -> None:
    _log.warning("%s %s: %s", type(update.trainer).__name__, what, _first_line(why))


def _first_line(why: object) -> str:
    return (str(why) or type(why).__name__).splitlines()[0]


class Graph(Protocol):
    """The interface of a graph of captured work, as torch.cuda.CUDAGraph is one."""

    def capture(self, work: Callable[[], Any]) -> Any:
        """Capture the work without executing it; return its result, which every replay overwrites.

        Args:
            work: Called once; it launches the operations to capture.

        """
        ...

    def replay(self) -> None:
        """Execute the captured work again, on the same memory."""
        ...

    def warming_up(self) -> AbstractContextManager[Any]:
        """Return the context of an eager warm-up of work that is captured later."""
        ...


@dataclass
class _CapturedGraph:
    """The graph of one batch shape.

    batch: The static input that the graph reads. result: The static output that it overwrites. constants: The numbers
    that it was captured with.
    """

    warm_ups: int = 0
    graph: Graph | None = None
    batch: Batch | None = None
    result: Any = None
    constants: tuple[float, ...] = ()


class GraphedCallable(Generic[T]):
    """A function of a batch that is replayed from a graph, one for each of the first few batch shapes.

    The first WARM_UP calls with a shape are eager. Then the function is captured, and captured again whenever its
    constants change. The result is overwritten by the next call with the same shape. Where the function cannot be
    captured, all further calls are eager.

    Args:
        work: The function of a batch.
        graph: Makes an empty graph.
        on_failure: Called once, with torch's error, where the function cannot be captured.
        shapes: The number of batch shapes that get a graph, 1 or more; calls with others are eager.

    Attributes:
        captured: Whether a graph was captured.

    """

    def __init__(
        self,
        work: Callable[[Batch], T],
        graph: Callable[[], Graph],
        on_failure: Callable[[RuntimeError], None],
        shapes: int = 1,
    ):
        self._work, self._make_graph, self._on_failure, self._shapes = work, graph, on_failure, shapes
        self._captured: dict[tuple[torch.Size, torch.Size], _CapturedGraph] = {}
        self._possible = True
        self.captured = False

    def __call__(self, batch: Batch, constants: tuple[float, ...] = ()) -> T:
        """Call the function on a batch, and return its result.

        Args:
            batch: The batch; its x and y are copied into the graph's static input.
            constants: Numbers outside of tensors that the function reads, such as a learning rate.

        """
        shape = (batch.x.shape, batch.y.shape)
        if len(self._captured) < self._shapes:
            self._captured.setdefault(shape, _CapturedGraph())
        graphed = self._captured.get(shape)
        if graphed is None or not self._possible:
            return self._work(batch)
        if graphed.warm_ups < WARM_UP:
            graphed.warm_ups += 1
            with self._make_graph().warming_up():
                return self._work(batch)
        if graphed.graph is None or graphed.constants != constants:
            self._capture(graphed, batch, constants)
        if graphed.graph is None or graphed.batch is None:
            return self._work(batch)
        graphed.batch.x.copy_(batch.x)
        graphed.batch.y.copy_(batch.y)
        graphed.graph.replay()
        return graphed.result

    def close(self) -> None:
        """Drop the graphs and their memory."""
        self._captured = {}

    def _capture(self, graphed: _CapturedGraph, batch: Batch, constants: tuple[float, ...]) -> None:
        graphed.graph = None  # frees the memory of an older one first
        static = graphed.batch or replace(batch, x=batch.x.clone(), y=batch.y.clone())
        graph = self._make_graph()
        try:
            graphed.result = graph.capture(lambda: self._work(static))
        except RuntimeError as error:  # which torch raises for what cannot be captured
            self._possible = self.captured = False
            self._on_failure(error)
            return
        graphed.graph, graphed.batch, graphed.constants, self.captured = graph, static, constants, True


class CudaGraph:
    """A torch.cuda.CUDAGraph with its own memory pool.

    Args:
        device: The CUDA device.

    """

    def __init__(self, device: torch.device):
        self.device = device
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], T]) -> T:
        """Capture the work without executing it; return its result, which every replay overwrites.

        Args:
            work: Called once; it launches the kernels to capture.

        """
        with torch.cuda.graph(self._graph):
            return work()

    def replay(self) -> None:
        """Launch the captured work."""
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


make_graph: Callable[[torch.device], Graph] = CudaGraph


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
