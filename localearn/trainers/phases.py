"""Phases of training, one after another: `Descent`, by gradients, and `Solve`, in closed form from one pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import Unsupported, UserError

Metrics = dict[str, Tensor]
Parts = Metrics | Iterator[Metrics]  # what `gradients` returns: metrics, or a generator that yields them in parts


class Phase:
    """Define a part of training with parameters, early stopping and, as the case may be, an optimizer of its own.

    The loop trains the phases that `Trainer.phases()` returns, in their order, each to its own end. The names of
    phases and their number are a part of a run's checkpoint and record.

    Args:
        name: the phase's name, as it is shown and recorded.
        parameters: the parameters that the phase trains; those of other phases stay as they are.
        predict: maps `input(x)`, and the context, to the outputs, (N, C), that the phase is validated by.
        features: maps x, and the context, to the phase's input where that is the output of frozen blocks; it must not
            depend on `parameters`, for it is computed once where the data are the same in every epoch. None: x itself.
        width: the number of values in a row of `features`; needed with `features`.
        frozen: modules that are in evaluation mode throughout the phase.

    Raises:
        ValueError: when `features` comes without `width`, or `width` without `features`.

    """

    def __init__(
        self,
        name: str,
        parameters: Iterable[nn.Parameter],
        *,
        predict: Callable[..., Tensor],
        features: Callable[..., Tensor] | None = None,
        width: int | None = None,
        frozen: Iterable[nn.Module] = (),
    ):
        if (features is None) != (width is None):
            raise ValueError(f"phase {name!r}: features and their width go together; give both or neither")
        self.name, self.parameters = name, tuple(parameters)
        self.width, self.frozen = width, tuple(frozen)
        self._predict, self._features = predict, features

    def input(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the phase's input, used as `batch.x`: x itself, or the features that frozen blocks compute from it.

        Args:
            x: rows, (N, *input_shape).
            context: what the blocks take next to x.

        """
        return x if self._features is None else self._features(x, *context)

    def predict(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return the phase's own outputs, (N, C), from its input.

        Args:
            h: `input(x)`.
            context: what the blocks take next to x.

        """
        return self._predict(h, *context)

    def freeze(self) -> None:
        """Put the frozen modules into evaluation mode; to be called after `trainer.train()`."""
        for module in self.frozen:
            module.eval()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Descent(Phase):
    """Define a phase that learns by gradients, with an optimizer and a learning-rate schedule of its own.

    `gradients` may be a generator. Where `steps` is 1 the optimizer steps once, at its end, or with `step=block` at
    each yield. Where it is n > 1 the rule continues from the stepped weights: the generator yields n times, with
    a gradient of every parameter, and at each yield the optimizer steps and `.grad` is emptied, whatever `step` is.

    Args:
        name: as in `Phase`.
        parameters: as in `Phase`.
        gradients: fills `.grad` of the parameters from a batch, see `Trainer.gradients`.
        by_block: the same gradients as an iterator that pauses at every block, for `step=block`; None: `gradients`.
        groups: of the parameters that have options of their own, groups as torch.optim takes them, say
            {"params": [...], "lr": 0.01}; what they leave out, and the other parameters, have the optimizer's.
        steps: optimizer steps for each batch, 1 or more.
        clipped: of the parameters those whose gradients' norm is bounded together (`clip_norm`), in parts that each
            have a norm of their own, say two nets; None: all of them in one.
        options: `predict`, `features`, `width` and `frozen`, as in `Phase`.

    Raises:
        UserError: when `steps` is no whole number of at least 1.

    Example:
        Descent("readout", self.net.readout.parameters(), self.gradients, predict=self.predict)

    """

    def __init__(
        self,
        name: str,
        parameters: Iterable[nn.Parameter],
        gradients: Callable[[Batch], Parts],
        *,
        by_block: Callable[[Batch], Parts] | None = None,
        groups: Iterable[dict[str, Any]] = (),
        steps: int = 1,
        clipped: Iterable[Iterable[nn.Parameter]] | None = None,
        **options: Any,
    ):
        super().__init__(name, parameters, **options)
        if not isinstance(steps, int) or steps < 1:
            raise UserError(f"phase {name!r}: steps must be a whole number, 1 or more, not {steps!r}")
        self.groups, self.steps = tuple(groups), steps
        self.clipped = (self.parameters,) if clipped is None else tuple(tuple(part) for part in clipped)
        self._gradients, self._by_block = gradients, by_block or gradients

    def gradients(self, batch: Batch) -> Parts:
        """Fill `.grad` of the phase's parameters; see `Trainer.gradients`.

        Args:
            batch: a batch whose x is `input(x)`.

        """
        return self._gradients(batch)

    def by_block(self, batch: Batch) -> Parts:
        """Fill `.grad` as `gradients` does, to the same bits, pausing wherever a block's are complete.

        Args:
            batch: a batch whose x is `input(x)`.

        """
        return self._by_block(batch)

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups: the parameters without options of their own, then `groups`."""
        grouped = {id(p) for group in self.groups for p in group["params"]}
        rest = [p for p in self.parameters if id(p) not in grouped]
        return [{"params": rest}] * bool(rest) + [dict(group) for group in self.groups]


class Solve(Phase, ABC):
    """Define a phase that sums over a single pass and then sets its parameters in closed form, without an optimizer.

    The sums belong to this object, from a pass's first batch to `solve`, and are no part of the rule's state. A run
    that is stopped in the midst of the pass takes it again from its beginning. All three methods are called without
    autograd; the features are not cached, for they are needed once.
    """

    @abstractmethod
    def accumulate(self, batch: Batch) -> None:
        """Add a batch to the sums that `solve` needs, without waiting for the device.

        Args:
            batch: a batch whose x is `input(x)`.

        """

    def sums(self) -> list[Tensor]:
        """Return the sums over the rows so far, which are all-reduced in place where ranks have rows each.

        Raises:
            Unsupported: when ranks cannot take a part of the pass each.

        """
        raise Unsupported(f"phase {self.name!r} does not say what it sums; use parallel=none")

    @abstractmethod
    def solve(self) -> Metrics:
        """Set the parameters, drop the sums and return detached scalars, `loss` among them."""


def completed(parts: Parts) -> Metrics:
    """Run what `gradients` returns to its end, without a step in between, and return its metrics.

    Args:
        parts: a dict of detached scalars, or an iterator of such, of which a later value replaces an earlier one.

    Raises:
        UserError: when it is neither.

    """
    if isinstance(parts, Mapping):
        return parts
    metrics: Metrics = {}
    for found in _checked(parts):
        metrics |= found
    return metrics


def in_parts(begin: Callable[[], Parts], precision: AbstractContextManager[Any]) -> Iterator[Metrics]:
    """Run what `gradients` returns part by part, each in a context, and yield each part's metrics outside of it.

    Args:
        begin: calls `gradients`.
        precision: autocast; it is left after each part, so that no cast of a weight outlasts a step between them.

    Raises:
        UserError: when `gradients` returns neither a dict nor an iterator.

    """
    with precision:
        parts = begin()
    if isinstance(parts, Mapping):
        yield parts
        return
    parts = _checked(parts)
    while True:
        with precision:
            found = next(parts, None)
        if found is None:
            return
        yield found


def _checked(parts: Any) -> Iterator[Metrics]:
    if not isinstance(parts, Iterator):
        which = "returns a dict of detached scalars, 'loss' among them, or yields such"
        raise UserError(f"gradients() {which}; this one returns {type(parts).__name__}")
    return parts
