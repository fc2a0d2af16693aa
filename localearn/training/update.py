"""What a step does with a batch: the rule's gradients, then the optimizer's step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import UserError
from localearn.trainers.base import Stage, Trainer
from localearn.training.layout import like_their_parameters
from localearn.training.parallel.ranks import Ranks
from localearn.training.settings import Settings


class Step(Protocol):
    """What takes a step by a batch. kind: how it is captured, for the record, see `Settings.capture`."""

    @property
    def kind(self) -> str:
        """How it is captured."""
        ...

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step by a batch; return the rule's metrics."""
        ...

    def close(self) -> None:
        """Leave the rule as it was before."""
        ...


class Update:
    """The update of a stage: `gradients`, the bound on their norm, and one step of the optimizer for them all."""

    kind = "off"

    def __init__(
        self,
        trainer: Trainer,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        settings: Settings,
        autocast: torch.autocast,
        ranks: Ranks,
    ):
        self.trainer, self.parameters, self.optimizer = trainer, stage.parameters, optimizer
        self.clip_norm, self.autocast, self.ranks = settings.clip_norm, autocast, ranks
        self.maps = [p for p in stage.parameters if p.dim() == 4]

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step by a batch; return the rule's metrics."""
        self.optimizer.zero_grad(set_to_none=True)
        metrics = self.gradients(batch) if len(batch.y) else {}
        self.ranks.reduce(self.parameters, len(batch.y))
        like_their_parameters(self.maps)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return metrics

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Fill `.grad` at the run's precision."""
        with self.autocast:
            return self.trainer.gradients(batch)

    def close(self) -> None:
        """Leave the rule as it was before."""


class UpdateByBlock(Update):
    """Steps each parameter as soon as its gradient is there, and drops the gradient.

    So only one gradient is held at a time, where a rule takes them one after another; backprop's as well, on its way
    back. The weights are those of one step for all, bit for bit, since a torch optimizer treats each parameter for
    itself. What a rule puts into `.grad` itself, instead of having autograd add it, is stepped when all are there.
    Raises UserError where a parameter gets its gradient in several parts, the first of which would be stepped alone.
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._hooks = [p.register_post_accumulate_grad_hook(self._step) for p in self.parameters]
        self._stepped: set[Tensor] | None = None  # None where gradients are taken for another purpose

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Take the gradients and step by each."""
        self._stepped = set()
        try:
            return super().gradients(batch)
        finally:
            self._stepped = None

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _step(self, parameter: Tensor) -> None:
        if self._stepped is None:
            return
        if parameter in self._stepped:
            raise UserError(f"{type(self.trainer).__name__} adds a gradient up from parts, so step=block cannot be had")
        self._stepped.add(parameter)
        with self._alone(parameter):
            self.optimizer.step()
        parameter.grad = None

    @contextmanager
    def _alone(self, parameter: Tensor) -> Iterator[None]:
        """Hide from the optimizer what the rule has put into other parameters' `.grad` so far."""
        others = {p: p.grad for p in self.parameters if p.grad is not None and p is not parameter}
        for p in others:
            p.grad = None
        yield
        for p, gradient in others.items():
            p.grad = gradient


UPDATES = {"all": Update, "block": UpdateByBlock}
