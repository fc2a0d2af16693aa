import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.nets.statistics import RunningStatistics, tracking
from localearn.tasks import Task
from localearn.trainers.base import Stage, Trainer, linear_readout
from localearn.trainers.feedback import DirectFeedbackAlignment
from localearn.trainers.local.ridge import NormalEquations, squared_error
from localearn.trainers.local.sparsemax import sparsemax_loss

Blocks = Literal["random", "dfa"]
Loss = Literal["mse", "ce", "sparsemax"]
Solver = Literal["closed_form", "gradient"]
Combine = Literal["sum", "average"]

LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": squared_error,
    "ce": F.cross_entropy,
    "sparsemax": sparsemax_loss,
}
LARGEST_WIDTH = 16384  # of a block for the closed form: its float64 normal matrix and the factor take 2 GiB each


class CaFo(Trainer):
    """Cascaded Forward: blocks that no predictor trains, and for each a linear predictor that is trained alone.

        o_k = flatten(h_k) W_k^T + b_k                       (N, C); W_k is (C, n_k), n_k the flattened width of h_k
        loss_k = mean |Y - o_k|^2 (mse), CE(o_k, y) (ce) or the sparsemax loss of o_k at y; trains W_k, b_k alone
        prediction = argmax sum_k softmax(o_k)               combine="average" divides by L: the same classes
                   = mean_k o_k                              of values, which have no other loss than mse

    blocks: "random" leaves them as they were drawn; "dfa" first trains them, in a stage of its own, by direct feedback
    alignment from the readout's error. Then the predictors are trained one after another: block k being fixed, h_k is
    computed once and an epoch is a linear map, where all at once would pass every batch through the blocks again.
    solver: "closed_form" is the ridge regression of `NormalEquations` in one pass, for mse alone, its default; it holds
    the normal matrix, (n_k, n_k) in float64, up to n_k = 16384, and raises UserError where ridge, which counts there
    alone, is too small to solve it. Autocast rounds the features, not the sums. "gradient" is steps of the optimizer,
    for every loss. Random blocks with batch normalisation have a pass before it for their running statistics.

    The last predictor is the net's readout, whose form, with a bias or without, all have; all start from zero. `scores`
    are the log of the sum or the mean of probabilities, so their cross-entropy is the prediction's.
    Zhao et al., arXiv 2303.09728. Their code (github.com/Graph-ZKY/CaFo) differs so: its batch normalisation takes the
    statistics of the whole training set in training and of the whole test set in testing, ours the training split's;
    it has no bias and no ridge, and a pseudo-inverse where A is singular. It has no DFA: that all blocks, the last one
    too, follow e B_k is ours. Known weakness: random blocks learn no features, so predictors of them fall behind a net
    that does (CIFAR-10: 66.1 % against backprop's 79.3 on the same net, arXiv 2509.19063).
    A Trainer of its own and no LocalTrainer, for no block has a loss.
    """

    needs_derivatives = False  # DFA does, and says so

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
        if self.closed_form and max(net.widths) > LARGEST_WIDTH:
            raise Unsupported(
                f"a block of {type(net).__name__} has {max(net.widths)} outputs, too many for cafo's closed form "
                f"({LARGEST_WIDTH} at most); use solver=gradient, pool more, or use fewer channels"
            )
        like, biased = net.readout.weight, net.readout.bias is not None
        self.predictors = nn.ModuleList(
            nn.Linear(n, net.classes, bias=biased, device=like.device, dtype=like.dtype) for n in net.widths[:-1]
        )
        for p in (*self.predictors.parameters(), *net.readout.parameters()):
            nn.init.zeros_(p)
        self.dfa = DirectFeedbackAlignment(net, scale="width", feedback="position") if blocks == "dfa" else None
        if self.dfa is not None:
            self.register_state_dict_post_hook(_leave_out_shared)
            self.register_load_state_dict_pre_hook(_put_in_shared)
        self.before = int(blocks == "dfa" or bool(tracking(net)))  # stages before the predictors'
        self._sums: NormalEquations | RunningStatistics | None = None
        self._unlearned: Tensor | None = None

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Serve every net whose readout, the last predictor, is one Linear layer that may learn."""
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
        """Refuse losses of labels where there are none."""
        super().check_task(task)
        if self._on != "mse" and not task.has_classes:
            raise Unsupported(f"cafo's loss={self._on} is one of labels, and {task} has none; use loss=mse")

    def predictor(self, k: int) -> nn.Linear:
        """Return the predictor that reads block k, 0..L-1."""
        predictor = self.net.readout if k == self.net.depth - 1 else self.predictors[k]
        assert isinstance(predictor, nn.Linear)
        return predictor

    def stages(self) -> list[Stage]:
        """Return the blocks' stage, if there is one, and one a predictor."""
        first = [Stage("blocks by dfa", tuple(p for p in self.net.parameters() if p.requires_grad))]
        if self.blocks == "random":
            first = [Stage("statistics", (), one_pass=True)]
        return first[: self.before] + [
            Stage(f"predictor {k + 1}", tuple(self.predictor(k).parameters()), start=k + 1, one_pass=self.closed_form)
            for k in range(self.net.depth)
        ]

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Fill `.grad` by DFA in the blocks' stage, else by the predictor's own loss; return the loss."""
        if self.dfa is not None and self._k < 0:
            return self.dfa.gradients(batch)
        target = self.task.encode(batch.target) if self._on == "mse" else batch.target
        loss = self.criterion(batch.select(self.predictor(self._k)(batch.x.detach().flatten(1))), target)
        loss.backward()
        return {"loss": loss.detach()}

    def accumulate(self, batch: Batch) -> None:
        """Take a batch into the running statistics, or its h_k into the normal equations."""
        if self._sums is None:
            k = self._k
            self._sums = RunningStatistics(self.net) if k < 0 else self._equations(k)
        if isinstance(self._sums, NormalEquations):
            target = batch.target if self.task.has_classes else self.task.encode(batch.target)
            self._sums.add(batch.select(batch.x.flatten(1)), target)
        else:
            self._sums.add(batch.x, *batch.context)
            if not self.task.has_classes:
                self._unlearned = self.task.loss(batch.x.new_zeros(len(batch.x), self.net.classes), batch)

    def sums(self) -> list[Tensor]:
        """Return the sums of the normal equations; running statistics are buffers, and none of a sum."""
        return self._sums.sums() if isinstance(self._sums, NormalEquations) else []

    def solve(self) -> dict[str, Tensor]:
        """Set the predictor and return its squared error; after the statistics, the loss without knowledge.

        That is the task's at an output of zero, for which no predictor is needed; of values, in the last batch.
        """
        sums, self._sums = self._sums, None
        if isinstance(sums, NormalEquations):
            return {"loss": sums.solve()}
        unlearned, self._unlearned = self._unlearned, None
        if unlearned is not None:
            return {"loss": unlearned}
        return {"loss": torch.tensor(float(self.net.classes), device=next(self.net.parameters()).device).log()}

    def scores(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the log of the sum, or the mean, of the predictors' class probabilities, (N, C), or of values.

        Values have the mean, whatever `combine` is.
        """
        outputs = enumerate(self.net.outputs(x, *context))
        total = self.task.pool([self.predictor(k)(h.flatten(1)) for k, h in outputs])
        return total - math.log(self.net.depth) if self.combine == "average" and self.task.adds_up else total

    def stage_input(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return h_k of the predictor in training; x itself in the blocks' stage."""
        return x if self._k < 0 else self.net.hidden(x, *context, depth=self._k + 1)

    def stage_scores(self, h: Tensor, *context: Tensor) -> Tensor:
        """Return (N, C) scores: of the one predictor in training; of the net in the blocks' stage."""
        return self.net(h, *context) if self._k < 0 else self.predictor(self._k)(h.flatten(1))

    def enter(self, stage: int) -> None:
        """Begin a stage; the blocks are evaluated, without dropout and by running statistics, unless it trains them."""
        super().enter(stage)
        self.train(self.training)

    def train(self, mode: bool = True) -> "CaFo":
        """Set training mode, but for the net unless the stage trains its blocks."""
        super().train(mode)
        if self.blocks == "random" or self._k >= 0:
            self.net.eval()
        return self

    def _equations(self, k: int) -> NormalEquations:
        return NormalEquations(self.predictor(k), self.ridge, labels=self.task.has_classes)

    @property
    def _k(self) -> int:
        """The predictor in training, 0..L-1; negative in the stage before them."""
        return self.stage - self.before


def _leave_out_shared(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Save the net once: DFA's is the very same."""
    for name in [name for name in state if name.startswith(f"{prefix}dfa.net.")]:
        del state[name]


def _put_in_shared(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load DFA's net from the one that was saved; older checkpoints have it twice."""
    of_net = f"{prefix}net."
    state |= {f"{prefix}dfa.{name.removeprefix(prefix)}": state[name] for name in state if name.startswith(of_net)}
