"""Training steps: the rule's gradients, and the optimizer's step by them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn, Protocol

import torch
from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent, Metrics, completed, in_parts
from localearn.training.distributed.ranks import Ranks
from localearn.training.layout import match_memory_format
from localearn.training.settings import Settings


class Step(Protocol):
    """The interface of a training step on a batch."""

    @property
    def kind(self) -> str:
        """Return how the step is captured, for the record: see `Settings.capture`."""
        ...

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on a batch; return the rule's metrics, scalars by name."""
        ...

    def close(self) -> None:
        """Restore the rule as it was before."""
        ...


class Update:
    """The update of a phase: `gradients`, gradient clipping, and one optimizer step for all parameters.

    One step a batch, at the end of `gradients`; a phase with n > 1 steps takes one at each of its n yields.

    Args:
        trainer: The rule.
        phase: The phase, whose `gradients` fill `.grad`.
        optimizer: The phase's optimizer.
        settings: The options of the run, of which `clip_norm` is used.
        autocast: The context of the run's precision.
        ranks: The ranks, over which gradients are averaged.

    Raises:
        UserError: At the first step, where no parameter has a gradient.

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
        self._learns = not phase.parameters  # or a parameter has had a gradient

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on a batch; return the rule's metrics, scalars by name."""
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
        """Restore the rule as it was before."""

    def _completed(self, batch: Batch) -> Metrics:
        """Fill `.grad` at the run's precision; return the metrics."""
        with self.autocast:
            return completed(self.phase.gradients(batch))

    def _step(self, rows: int) -> None:
        """Step the optimizer by `.grad`, a mean over `rows` rows of this process."""
        self.ranks.reduce_gradients(self.parameters, rows)
        if not self._learns and rows:
            self._check_learns()
        match_memory_format(self.maps)
        if self.clip_norm is not None:
            for part in self.phase.clipped:
                nn.utils.clip_grad_norm_(part, self.clip_norm)
        self.optimizer.step()

    def _check_learns(self) -> None:
        """Raise UserError where no parameter has a gradient in the first step, so that nothing would be trained."""
        self._learns = any(p.grad is not None for p in self.parameters)
        if not self._learns:
            rule = type(self.trainer).__name__
            raise UserError(f"{rule}'s gradients() fills no .grad of phase {self.phase.name!r}, so nothing is trained")

    def _parts(self, batch: Batch) -> Iterator[Metrics]:
        """Return an iterator over `gradients`; on a rank without rows, over as many empty metrics as others yield."""
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
    """The update that steps at each yield of the rule by the gradients that are complete, and drops them.

    So the gradients of one block at most are in memory at a time, where a rule computes them block by block; backprop
    does, too, in its backward pass. The weights are those of a single step, bit for bit, since a torch optimizer
    updates each parameter separately.

    Raises:
        UserError: Where a parameter's gradient is accumulated over several yields, the first of which would be stepped
            alone.

    """

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Take a step on each block's gradients; return the rule's metrics, scalars by name."""
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
                    f"{type(self.trainer).__name__} accumulates a gradient over several blocks, so it needs step=all"
                )
            if complete:
                stepped.update(complete)
                self._step(len(batch.y))
                self.optimizer.zero_grad(set_to_none=True)
        if not self._learns and len(batch.y):
            self._check_learns()
        return metrics


UPDATES = {"all": Update, "block": UpdateByBlock}


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
