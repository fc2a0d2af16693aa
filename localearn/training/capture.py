"""The whole update as one thing, and validation: a CUDA graph that is replayed, or blocks and optimizer compiled."""

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from localearn.data import Batch
from localearn.errors import UserError
from localearn.training.recording import CudaGraph, Graph, Recorded
from localearn.training.update import Step, Update

T = TypeVar("T")

_log = logging.getLogger(__name__)

SHAPES = 2  # of a validation's batches: the full ones, and the last
graph_of: Callable[[torch.device], Graph] = CudaGraph


class GraphUpdate:
    """Replays the update of a batch of the first one's size from a graph; any other batch is done as ever.

    It is recorded again whenever a schedule has changed a number that the optimizer holds: a rate, a weight decay, a
    momentum. The weights are those without a graph, to the device's rounding.
    """

    def __init__(self, update: Update, device: torch.device):
        self.update = update
        self._recorded = Recorded(
            update, lambda: graph_of(device), lambda error: _tell(update, "is trained without a graph", error)
        )
        keep_on_device(update.optimizer)

    @property
    def kind(self) -> str:
        """How it is captured."""
        return "graph" if self._recorded.recorded else "off"

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step by a batch; return the rule's metrics, which the next step overwrites."""
        return self._recorded(batch, tuple(_numbers(self.update.optimizer)))

    def close(self) -> None:
        """Drop the graph and its memory."""
        self._recorded.close()
        self.update.close()


def _numbers(optimizer: torch.optim.Optimizer) -> Iterator[float]:
    """Yield the numbers of an optimizer's groups, which a graph of its step holds as they were.

    Not those in tensors, say a rate: the graph reads them itself, and the host would have to wait for them.
    """
    for group in optimizer.param_groups:
        for value in group.values():
            for number in value if isinstance(value, tuple) else (value,):  # Adam's betas are two
                if isinstance(number, int | float):
                    yield number


class CompiledUpdate:
    """Compiles the blocks and the optimizer's step with torch.compile; the weights are those without, to rounding.

    Where the first update shows that this is not possible it says so in a line, once, and goes on as ever.
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


def captured(update: Update, mode: str, device: torch.device) -> Step:
    """Return an update as `Settings.capture` wants it."""
    if mode == "compile":
        return CompiledUpdate(update)
    if not _by_graph(mode, device):
        if mode == "graph":
            why = f"capture=graph needs a CUDA device, and this is a {device.type}"
            _tell(update, "is trained without a graph", why)
        return update
    return GraphUpdate(update, device)


def captured_measure(measure: Callable[[Batch], T], mode: str, device: torch.device) -> Callable[[Batch], T]:
    """Return what measures a batch in validation as `Settings.capture` wants it; compiled blocks are that already."""
    if not _by_graph(mode, device):
        return measure

    def refused(error: RuntimeError) -> None:
        _log.warning("validation is done without a graph: %s", _line(error))

    return Recorded(measure, lambda: graph_of(device), refused, SHAPES)


def _by_graph(mode: str, device: torch.device) -> bool:
    on_card = device.type == "cuda" or graph_of is not CudaGraph
    return on_card and (mode == "graph" or (mode == "auto" and device.type == "cuda"))


def _tell(update: Update, what: str, why: object) -> None:
    _log.warning("%s %s: %s", type(update.trainer).__name__, what, _line(why))


def _line(why: object) -> str:
    return (str(why) or type(why).__name__).splitlines()[0]


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
