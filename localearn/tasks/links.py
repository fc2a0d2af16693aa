"""Link prediction: the output is a vector of each node, the target of a pair of nodes whether an edge joins them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.errors import UserError
from localearn.tasks.base import Means, Metric, Task, exact
from localearn.tasks.ranking import area_under_roc


def _loss(means: Means) -> Tensor:
    return means["loss"]


def _auc(output: Tensor, target: Tensor) -> Tensor:
    return area_under_roc(pair_logits(output), target)


@dataclass(frozen=True)
class LinkPrediction(Task):
    """Predict edges: the output is a vector z of each node, (N, n), the target whether an edge joins a pair (u, v).

        o_uv = sum_j z_uj z_vj,    L_uv = log(1 + exp(o_uv)) - y o_uv, the binary cross-entropy of sigmoid(o_uv)

    An element is a pair: a batch's `index` is (M, 2), and `Batch.select` takes from (N, n) the vectors of both ends,
    (M, 2, n), which `losses` and `measure` read. Where B predictors are pooled, to (N, B, n) and (M, 2, B, n), the
    probability is the mean of theirs. Metrics are the area under the ROC curve, `auc`, `log_loss`, and `accuracy` (of
    o > 0).

    Args:
        outputs: n, the length of a node's vector.

    """

    outputs: int = 128
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("auc", "max", "value", whole=_auc),
        Metric("log_loss", "min", "value", _loss),
        Metric("accuracy", "max", "fraction"),
    )
    of_pairs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise UserError(f"link prediction has 1 output a node or more, not {self.outputs}")

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each pair, (M,), from its ends' vectors, (M, 2, n), in float32 at least."""
        logits = pair_logits(output).squeeze(1)
        return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")

    def encode(self, target: Tensor) -> Tensor:
        """Refuse: a pair's target is not a value of a node.

        Raises:
            UserError: always.

        """
        raise UserError("link prediction has no target of a node alone; use algo=backprop or forward_gnn")

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Sum the losses and the pairs whose logit has the right sign, in float64."""
        (output,) = exact(output)
        loss = self.losses(output, target)
        hits = (pair_logits(output).squeeze(1) > 0) == (target > 0.5)
        return {"loss": loss.sum(), "accuracy": hits.sum().to(loss.dtype)}, loss.new_tensor(len(target))

    def check_target(self, what: str, target: Tensor) -> None:
        """Check that targets are zeros and ones, (M,).

        Args:
            what: the name of the targets in error messages.
            target: the targets.

        Raises:
            UserError: where they are not.

        """
        if target.dim() != 1 or bool(((target != 0) & (target != 1)).any()):
            raise UserError(f"{what} must be zeros and ones, one for each pair of nodes")

    def pool(self, outputs: Sequence[Tensor]) -> Tensor:
        """Stack the vectors of several predictors, (N, B, n), padding the narrower ones with zeros."""
        widest = max(output.shape[-1] for output in outputs)
        return torch.stack([F.pad(output, (0, widest - output.shape[-1])) for output in outputs], dim=1)


def pair_logits(output: Tensor) -> Tensor:
    """Compute the logit o of each pair, (M, 1).

    Args:
        output: the vectors of its ends, (M, 2, n), or those of B predictors, (M, 2, B, n), of which the logit is
            log(p / (1 - p)) of the mean p of the predictors' sigmoids.

    """
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    logits = (output[:, 0] * output[:, 1]).sum(-1)
    if logits.dim() == 1:
        return logits.unsqueeze(1)
    return (F.logsigmoid(logits).logsumexp(1) - F.logsigmoid(-logits).logsumexp(1)).unsqueeze(1)
