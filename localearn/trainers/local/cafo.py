"""Cascaded Forward: for each of fixed blocks a linear predictor that is trained alone."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.moved import former_names
from localearn.nets import Net
from localearn.nets.introspection import RunningStatistics, tracking
from localearn.tasks import Task
from localearn.trainers.base import Trainer, linear_readout
from localearn.trainers.feedback import DirectFeedbackAlignment
from localearn.trainers.local.losses import LOSSES, Loss
from localearn.trainers.local.ridge import NormalEquations
from localearn.trainers.phases import Descent, Metrics, Phase, Solve

Blocks = Literal["random", "dfa"]
Solver = Literal["closed_form", "gradient"]
Combine = Literal["sum", "average"]
LARGEST_WIDTH = 16384  # of a block for the closed form: its float64 normal matrix and the factor take 2 GiB each


class CaFo(Trainer):
    """Train by Cascaded Forward: a linear predictor of each block is trained alone, and does not train the block.

        o_k = view(h_k) W_k^T + b_k                          (N, C); W_k is (C, n_k), n_k what the net's view reads
        loss_k = mean |Y - o_k|^2 (mse), CE(o_k, y) (ce) or the sparsemax loss of o_k at y; trains W_k, b_k alone
        prediction = argmax sum_k softmax(o_k)               combine="average" divides by L: the same classes
                   = mean_k o_k                              of values, which have no other loss than mse

    The predictors are trained one after another: block k being fixed, h_k is computed once and an epoch is a linear
    map, where all at once would pass every batch through the blocks again. Random blocks with batch normalisation have
    a pass before it for their running statistics.

    Where the view is per position, o_k is (N, T, C) and a position is what a row is here; padding counts nowhere.

    The last predictor is the net's readout, whose form, with a bias or without, all have; all start from zero.
    `predict` returns the log of the sum or the mean of probabilities, so their cross-entropy is the prediction's.

    Zhao et al., arXiv 2303.09728. Their code (github.com/Graph-ZKY/CaFo) differs so: its batch normalisation takes the
    statistics of the whole training set in training and of the whole test set in testing, ours the training split's; it
    has no bias and no ridge, and a pseudo-inverse where A is singular. It has no DFA: that all blocks, the last one
    too, follow e B_k is ours.

    Known weakness: random blocks learn no features, so predictors of them fall behind a net that does (CIFAR-10: 66.1 %
    against backprop's 79.3 on the same net, arXiv 2509.19063).

    A Trainer of its own and no LocalTrainer, for no block has a loss.

    Args:
        net: a net whose readout, the last predictor, is one Linear layer that may learn.
        blocks: "random" leaves them as they were drawn; "dfa" first trains them, in a phase of its own, by direct
            feedback alignment from the readout's error.
        loss: "mse", "ce" or "sparsemax", as above.
        solver: "closed_form" is the ridge regression of `NormalEquations` in one pass, for mse alone; it holds the
            normal matrix, (n_k, n_k) in float64, up to n_k = 16384. Autocast rounds the features, not the sums.
            "gradient" is steps of the optimizer, for every loss. None: closed_form for mse, gradient for the others.
        ridge: of the closed form alone, positive; a UserError says so where it is too small to solve it.
        combine: "sum" or "average" of the predictors' probabilities.

    Raises:
        UserError: when a loss has no closed form, or `ridge` is not positive.
        Unsupported: when the normal matrix would be too large.

    """

    needs_derivatives = False  # DFA does, and checks the net itself
    encodes_targets = True

    def __init__(
        self,
        net: Net,
        blocks: Blocks = "random",
        loss: Loss = "mse",
        solver: Solver | None = None,
        ridge: float = 1e-2,
        combine: Combine = "sum",
    ):
        super().__init__(net)
        self._on, self.criterion = loss, LOSSES[loss]
        if solver == "closed_form" and loss != "mse":
            raise UserError(f"loss={loss} has no closed form; use solver=gradient, or loss=mse")
        if ridge <= 0:
            raise UserError(f"ridge must be positive, for the normal matrix may have no inverse, not {ridge}; try 1e-2")
        self.blocks, self.ridge, self.combine = blocks, ridge, combine
        self.closed_form = loss == "mse" and solver != "gradient"
        if self.closed_form and max(net.reads) > LARGEST_WIDTH:
            raise Unsupported(
                f"a block of {type(net).__name__} has {max(net.reads)} outputs, too many for cafo's closed form "
                f"({LARGEST_WIDTH} at most); use solver=gradient, pool more, or use fewer channels"
            )
        like, biased = net.readout.weight, net.readout.bias is not None
        self.predictors = nn.ModuleList(
            nn.Linear(n, net.classes, bias=biased, device=like.device, dtype=like.dtype) for n in net.reads[:-1]
        )
        for p in (*self.predictors.parameters(), *net.readout.parameters()):
            nn.init.zeros_(p)
        self.dfa = DirectFeedbackAlignment(net, scale="width", feedback="position") if blocks == "dfa" else None
        if self.dfa is not None:
            self.register_state_dict_post_hook(_leave_out_shared)
            self.register_load_state_dict_pre_hook(_put_in_shared)

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: its readout, the last predictor, is one Linear layer that may learn."""
        super().supports(net, data)
        if not isinstance(net.readout, nn.Linear):
            kind = type(net.readout).__name__
            raise Unsupported(
                f"cafo's last predictor is the readout, a Linear; {type(net).__name__} has a {kind}"
                f"{linear_readout(net)}"
            )
        if not all(p.requires_grad for p in net.readout.parameters()):
            raise Unsupported("cafo's last predictor is the readout, which is frozen; set its requires_grad")

    def check_task(self, task: Task) -> None:
        """Check the task: losses of labels refuse one without labels."""
        super().check_task(task)
        if self._on != "mse" and not task.exclusive:
            raise Unsupported(f"cafo's loss={self._on} is one of labels, and {task} has none; use loss=mse")

    def predictor(self, k: int) -> nn.Linear:
        """Return the predictor that reads block k.

        Args:
            k: the block, 0..L-1.

        """
        predictor = self.net.readout if k == self.net.depth - 1 else self.predictors[k]
        assert isinstance(predictor, nn.Linear)
        return predictor

    @property
    def net_predicts(self) -> bool:
        """Whether the net alone gives the output that the rule learns by: the last predictor's, by DFA the blocks'."""
        return True

    def phases(self) -> Sequence[Phase]:
        """Return the blocks' phase, if there is one, and one a predictor."""
        first: list[Phase] = []
        if self.dfa is not None:
            blocks = (p for p in self.net.parameters() if p.requires_grad)
            first = [Descent("blocks by dfa", blocks, self.dfa.gradients, by_block=self.dfa.by_block, predict=self.net)]
        elif tracking(self.net):
            first = [Statistics(self.net)]
        return [*first, *map(self._predictor_phase, range(self.net.depth))]

    def _predictor_phase(self, k: int) -> Phase:
        predictor = self.predictor(k)

        def predict(h: Tensor, *context: Tensor) -> Tensor:
            return predictor(self.net.view(h))

        name, features = f"predictor {k + 1}", partial(self.net.hidden, depth=k + 1)
        options = {"predict": predict, "features": features, "width": self.net.widths[k], "frozen": [self.net]}
        if self.closed_form:
            return RidgeRegression(name, predictor, self.ridge, self.net, **options)
        return Descent(name, predictor.parameters(), lambda batch: self._learn(k, batch.x, batch), **options)

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` of all predictors, the blocks staying as they are; return the sum of the losses and each one's.

        A run trains them one after another, see `phases`.
        """
        outputs = enumerate(self.net.outputs(batch.x, *batch.context))
        losses = {f"loss_{k + 1}": self._learn(k, h, batch)["loss"] for k, h in outputs}
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _learn(self, k: int, h: Tensor, batch: Batch) -> Metrics:
        """Fill `.grad` of predictor k from h_{k+1}, (N, ...); return its loss."""
        z = batch.select(self.predictor(k)(self.net.view(h.detach())))
        loss = self.criterion(*_elements(self.task, z, batch.target, as_values=self._on == "mse"))
        loss.backward()
        return {"loss": loss.detach()}

    def predict(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the log of the sum, or the mean, of the predictors' class probabilities, (N, C), or of values.

        Values have the mean, whatever `combine` is.
        """
        outputs = enumerate(self.net.outputs(x, *context))
        total = self.task.pool([self.predictor(k)(self.net.view(h)) for k, h in outputs])
        return total - math.log(self.net.depth) if self.combine == "average" and self.task.adds_up else total


@final
class Statistics(Solve):
    """Set the running statistics of a net's batch normalisations in a pass before the first predictor.

    Args:
        net: the net.

    """

    def __init__(self, net: Net):
        super().__init__("statistics", (), predict=net, frozen=[net])
        self.net = net
        self._statistics: RunningStatistics | None = None
        self._unlearned: Tensor | None = None

    def accumulate(self, batch: Batch) -> None:
        """Update the running statistics with a batch."""
        if self._statistics is None:
            self._statistics = RunningStatistics(self.net)
        self._statistics.add(batch.x, *batch.context)
        if not self.net.task.exclusive:
            nothing = next(self.net.parameters()).new_zeros(len(batch.x), self.net.classes)
            self._unlearned = self.net.task.loss(nothing, batch)

    def sums(self) -> list[Tensor]:
        """Return nothing: running statistics are buffers, and averages."""
        return []

    def solve(self) -> Metrics:
        """Return the loss without knowledge: the task's at an output of zero; of values, in the last batch."""
        self._statistics = None
        unlearned, self._unlearned = self._unlearned, None
        if unlearned is not None:
            return {"loss": unlearned}
        return {"loss": torch.tensor(float(self.net.classes), device=next(self.net.parameters()).device).log()}


@final
class RidgeRegression(Solve):
    """Solve for a linear predictor of features by `NormalEquations`, in one pass.

    Args:
        name: the phase's name.
        predictor: the map to be set.
        ridge: as in `NormalEquations`.
        net: the net, for its task and its view.
        options: as in `Phase`.

    """

    def __init__(self, name: str, predictor: nn.Linear, ridge: float, net: Net, **options: Any):
        super().__init__(name, predictor.parameters(), **options)
        self.predictor, self.ridge, self.net = predictor, ridge, net
        self._equations: NormalEquations | None = None

    def accumulate(self, batch: Batch) -> None:
        """Add a batch's features, (N, ...), to the normal equations."""
        task = self.net.task
        if self._equations is None:
            labels = task.exclusive and task.counted(batch.target) is None
            self._equations = NormalEquations(self.predictor, self.ridge, labels=labels)
        h = batch.select(self.net.view(batch.x))
        self._equations.add(*_elements(task, h, batch.target, as_values=not self._equations.labels))

    def sums(self) -> list[Tensor]:
        """Return the sums of the normal equations."""
        return [] if self._equations is None else self._equations.sums()

    def solve(self) -> Metrics:
        """Set the predictor and return its squared error."""
        assert self._equations is not None
        equations, self._equations = self._equations, None
        return {"loss": equations.solve()}


def _elements(task: Task, per_row: Tensor, target: Tensor, *, as_values: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what is said of each element, (E, n), its target, a label or values, and whether it counts, None: all.

    per_row: (M, n), or (M, T, n) where positions are the elements. Values: (E, outputs), zeros where not counted.
    """
    counted = task.counted(target)
    if as_values:
        target = task.regressand(target).flatten(0, -2)
    else:
        target = target.flatten() if counted is None else torch.where(counted, target, 0).flatten()
    return per_row.flatten(0, -2), target, None if counted is None else counted.flatten()


def _leave_out_shared(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Save the net once: DFA's is the very same."""
    for name in [name for name in state if name.startswith(f"{prefix}dfa.net.")]:
        del state[name]


def _put_in_shared(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load DFA's net from the one that was saved; older checkpoints have it twice."""
    of_net = f"{prefix}net."
    state |= {f"{prefix}dfa.{name.removeprefix(prefix)}": state[name] for name in state if name.startswith(of_net)}


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
