"""The whole update as one thing: a CUDA graph that is replayed, or blocks and optimizer compiled."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from localearn.data import Batch
from localearn.errors import UserError
from localearn.training.update import Update

_log = logging.getLogger(__name__)

WARM_UP = 3  # updates before the capture, as torch asks for: libraries and the optimizer's state are made in them


class Graph(Protocol):
    """What records the work of a device and does it again."""

    def capture(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
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

    def capture(self, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
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


class GraphUpdate(Update):
    """Replays the update of a batch of the first one's size from a graph; any other batch is done as ever.

    The first WARM_UP updates are real ones, done without a graph; then one is recorded, and again whenever a schedule
    has changed the rates, which a graph holds as numbers. Where recording is not possible it says so in a line, once,
    and every update is done as ever. The weights are those without it, to the device's rounding.
    """

    def __init__(self, update: Update, graph: Callable[[], Graph]):
        self.update, self._make = update, graph
        self._shape: torch.Size | None = None
        self._warm = 0
        self._graph: Graph | None = None
        self._possible = True
        self._rates: list[float] = []
        self._batch: Batch | None = None
        self._metrics: dict[str, Tensor] = {}
        keep_on_device(update.optimizer)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step by a batch; return the rule's metrics, which the next step overwrites."""
        self._shape = self._shape or batch.x.shape
        if batch.x.shape != self._shape or not self._possible:
            return self.update(batch)
        if self._warm < WARM_UP:
            self._warm += 1
            with self._make().warming_up():
                return self.update(batch)
        rates = [float(group["lr"]) for group in self.update.optimizer.param_groups]
        if self._graph is None or rates != self._rates:
            self._record(batch)
            self._rates = rates
        if self._graph is None or self._batch is None:
            return self.update(batch)
        self._batch.x.copy_(batch.x)
        self._batch.y.copy_(batch.y)
        self._graph.replay()
        return self._metrics

    def close(self) -> None:
        """Drop the graph and its memory."""
        self._graph, self._batch, self._metrics = None, None, {}
        self.update.close()

    def _record(self, batch: Batch) -> None:
        self._graph = None  # an older one's memory goes first
        own = self._batch or replace(batch, x=batch.x.clone(), y=batch.y.clone())
        graph = self._make()
        try:
            self._metrics = graph.capture(lambda: self.update(own))
        except RuntimeError as error:  # torch's way to say that something cannot be recorded
            self._possible, self.kind = False, "off"
            _tell(self.update, "is trained without a graph", error)
            return
        self._graph, self._batch, self.kind = graph, own, "graph"


class CompiledUpdate(Update):
    """Compiles the blocks and the optimizer's step with torch.compile; the weights are those without, to rounding.

    Where the first update shows that this is not possible it says so in a line, once, and goes on as ever.
    """

    kind = "compile"

    def __init__(self, update: Update):
        self.update = update
        self._blocks = list(update.trainer.net.blocks)
        self._step = update.optimizer.step
        for block in self._blocks:
            block.compile()
        update.optimizer.step = torch.compile(update.optimizer.step)
        self._tried = False

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step by a batch; return the rule's metrics."""
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
        """Put blocks and optimizer back."""
        self._undo()
        self.update.close()

    def _undo(self) -> None:
        for block in self._blocks:
            block._compiled_call_impl = None
        self.update.optimizer.step = self._step


def captured(update: Update, mode: str, device: torch.device) -> Update:
    """Return an update as `Settings.capture` wants it."""
    if mode == "compile":
        return CompiledUpdate(update)
    if mode == "off" or (mode == "auto" and device.type != "cuda"):
        return update
    if device.type != "cuda" and graph_of is CudaGraph:
        _tell(update, "is trained without a graph", f"capture=graph needs a CUDA device, and this is a {device.type}")
        return update
    return GraphUpdate(update, lambda: graph_of(device))


graph_of: Callable[[torch.device], Graph] = CudaGraph


def _tell(update: Update, what: str, why: object) -> None:
    _log.warning("%s %s: %s", type(update.trainer).__name__, what, (str(why) or type(why).__name__).splitlines()[0])


def keep_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer count its steps on the device, where a graph can."""
    for group in optimizer.param_groups:
        if "capturable" in group and all(p.is_cuda for p in group["params"]):
            group["capturable"] = True
        for p in (p for p in group["params"] if p.is_cuda):
            step = optimizer.state.get(p, {}).get("step")
            if isinstance(step, Tensor):
                optimizer.state[p]["step"] = step.to(p.device)


def on_any_device(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state_dict that can be gone on with where there are no graphs."""
    groups = [group | ({"capturable": False} if "capturable" in group else {}) for group in state["param_groups"]]
    return state | {"param_groups": groups}
