"""What a step does with a batch: the rule's gradients, then the optimizer's step."""

from collections.abc import Iterator
from typing import NoReturn, Protocol

import torch
from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import UserError
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent, Metrics, completed, in_parts
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
    """The update of a phase: `gradients`, the bound on their norm, and a step of the optimizer for them all.

    One step a batch, at the end of `gradients`; of a phase with n > 1 steps one at each of its n yields.
    """

    kind = "off"

    def __init__(
        self,
        trainer: Trainer,
        phase: Descent,
        optimizer: torch.optim.Optimizer,
        settings: Settings,
        autocast: torch.autocast,
        ranks: Ranks,
    ):
        self.trainer, self.phase, self.parameters, self.optimizer = trainer, phase, phase.parameters, optimizer
        self.clip_norm, self.autocast, self.ranks = settings.clip_norm, autocast, ranks
        self.maps = [p for p in phase.parameters if p.dim() == 4]
        self._learns = not phase.parameters  # or a gradient has been there

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step by a batch; return the rule's metrics."""
        if self.phase.steps == 1:
            self.optimizer.zero_grad(set_to_none=True)
            metrics = self._completed(batch) if len(batch.y) else {}
            self._step(len(batch.y))
            return metrics
        metrics, parts = {}, self._parts(batch)
        for _ in range(self.phase.steps):
            self.optimizer.zero_grad(set_to_none=True)
            metrics |= self._next(parts)
            self._step(len(batch.y))
        for _ in parts:
            self._miscounted("more")
        return metrics

    def close(self) -> None:
        """Leave the rule as it was before."""

    def _completed(self, batch: Batch) -> Metrics:
        """Fill `.grad` at the run's precision."""
        with self.autocast:
            return completed(self.phase.gradients(batch))

    def _step(self, rows: int) -> None:
        """Step by what stands in `.grad`, the mean over so many rows of this process."""
        self.ranks.reduce(self.parameters, rows)
        if not self._learns and rows:
            self._check_learns()
        like_their_parameters(self.maps)
        if self.clip_norm is not None:
            for part in self.phase.clipped:
                nn.utils.clip_grad_norm_(part, self.clip_norm)
        self.optimizer.step()

    def _check_learns(self) -> None:
        """Raise UserError where the first step has no gradient at all, so that nothing would ever be trained."""
        self._learns = any(p.grad is not None for p in self.parameters)
        if not self._learns:
            rule = type(self.trainer).__name__
            raise UserError(f"{rule}'s gradients() fills no .grad of phase {self.phase.name!r}, so nothing is trained")

    def _parts(self, batch: Batch) -> Iterator[Metrics]:
        """Yield what `gradients` yields; of a rank without rows, as often as the others."""
        if not len(batch.y):
            return iter([{}] * self.phase.steps)
        return in_parts(lambda: self.phase.gradients(batch), self.autocast)

    def _next(self, parts: Iterator[Metrics]) -> Metrics:
        found = next(parts, None)
        return self._miscounted("fewer") if found is None else found

    def _miscounted(self, how: str) -> NoReturn:
        rule, steps = type(self.trainer).__name__, self.phase.steps
        raise ValueError(f"{rule}'s gradients() yields {how} times than its phase has steps, {steps}")


class UpdateByBlock(Update):
    """Steps at each yield of the rule by the gradients that are complete, and drops them.

    So no more than a block's gradients are held at a time, where a rule takes them block by block; backprop's as well,
    on its way back. The weights are those of one step for all, bit for bit, since a torch optimizer treats each
    parameter for itself. Raises UserError where a parameter gets its gradient in several parts, the first of which
    would be stepped alone.
    """

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step by each block's gradients; return the rule's metrics."""
        if self.phase.steps > 1:
            return super().__call__(batch)
        self.optimizer.zero_grad(set_to_none=True)
        metrics: Metrics = {}
        stepped = set[Tensor]()
        for found in in_parts(lambda: self.phase.by_block(batch), self.autocast):
            metrics |= found
            complete = [p for p in self.parameters if p.grad is not None]
            if not stepped.isdisjoint(complete):
                raise UserError(
                    f"{type(self.trainer).__name__} adds a gradient up from parts, so step=block cannot be had"
                )
            if complete:
                stepped.update(complete)
                self._step(len(batch.y))
                self.optimizer.zero_grad(set_to_none=True)
        if not self._learns and len(batch.y):
            self._check_learns()
        return metrics


UPDATES = {"all": Update, "block": UpdateByBlock}
