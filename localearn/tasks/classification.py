"""Classification: the output is logits, the target a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.tasks.base import Metric, Task


@dataclass(frozen=True)
class Classification(Task):
    """Classify rows: the output is (M, C) logits, the target a label, (M,) int64 in 0..C-1, the loss cross-entropy.

    The metric is `accuracy`, the share of rows whose largest logit is their label's.

    Args:
        outputs: C, the number of classes.

    """

    outputs: int
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("accuracy", "max", "fraction"),)
    adds_up: ClassVar[bool] = True
    has_classes: ClassVar[bool] = True

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy of each row, (..., M)."""
        labels = target.expand(output.shape[:-1])
        return F.cross_entropy(output.flatten(0, -2), labels.flatten(), reduction="none").view_as(labels)

    def mean_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean cross-entropy, a scalar, by the fused kernel."""
        return F.cross_entropy(output, target)

    def encode(self, target: Tensor) -> Tensor:
        """Return the labels as one-hot rows, (M, C) float32, without a host synchronisation."""
        return (target.unsqueeze(-1) == torch.arange(self.outputs, device=target.device)).float()

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Sum the cross-entropies and the rows whose largest logit is their label's, in float32."""
        loss = F.cross_entropy(output, target, reduction="sum")
        hits = (output.argmax(1) == target).sum().to(loss.dtype)
        return {"loss": loss, "accuracy": hits}, torch.full_like(loss, len(target))

    def pool(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the log of the sum of the predictors' class probabilities, (N, C)."""
        return torch.stack([logits.log_softmax(-1) for logits in outputs]).logsumexp(0)
