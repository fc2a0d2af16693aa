"""Multi-label classification: the output is a logit per label, and any number of labels may be true of a row."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.errors import UserError
from localearn.tasks.base import Means, Metric, Task, exact
from localearn.tasks.ranking import area_under_roc, ndcg_at, recall_at


@dataclass(frozen=True)
class MultiLabel(Task):
    """Predict labels independently: the output is (M, L) logits, the target zeros and ones, (M, L), or (M,) for L = 1.

        L_i = mean_l of log(1 + exp(o)) - y o, the binary cross-entropy of sigmoid(o)

    One output is binary classification. Labels are tags of a row, or items of a user, which a recommender ranks. The
    metrics, the first of which a run is judged by:

        one output      auc, log_loss, accuracy (of o > 0)
        up to k         auc, log_loss
        more than k     recall@k, ndcg@k, log_loss, auc: a row's labels are ranked by their logits

    `auc` is the area under the ROC curve, for several outputs the mean over the labels (macro); a label that is true of
    all rows of a split, or of none, has no such curve and is left out of the mean, and the figure is NaN where no label
    has one. `recall@k` is the share of a row's true labels that are among its k largest logits, `ndcg@k` their
    discounted gain over that of the best ranking; both are means over the rows that have a true label, and where logits
    are equal they are means over all orders of the equal ones. `auc`, `log_loss` and `ndcg@k` equal scikit-learn's.

    Args:
        outputs: L, the number of labels.
        k: the number of top-ranked labels of a row that `recall@k` and `ndcg@k` consider; 0: rows are not ranked.

    Example:
        data = localearn.data.from_arrays(x, y, task=MultiLabel(k=5))       # y: (N, L) zeros and ones

    """

    outputs: int = 1
    k: int = 10
    adds_up: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise UserError(f"a multi-label task has 1 output or more, not {self.outputs}")
        if self.k < 0:
            raise UserError(f"k must be 1 or more, or 0 where rows are no rankings, not {self.k}")

    @property
    def metrics(self) -> tuple[Metric, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The metrics; a run is watched by the first one."""
        auc, log_loss = Metric("auc", "max", "value", whole=area_under_roc), Metric("log_loss", "min", "value", _loss)
        if self.outputs == 1:
            return auc, log_loss, Metric("accuracy", "max", "fraction")
        if not self._ranks:
            return auc, log_loss
        recall = Metric(f"recall@{self.k}", "max", "fraction", _recall)
        return recall, Metric(f"ndcg@{self.k}", "max", "value", _ndcg), log_loss, auc

    @property
    def _ranks(self) -> bool:
        return 0 < self.k < self.outputs

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each row, (..., M), a mean over its outputs; in float32 where outputs are narrower."""
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        values = self.encode(target).to(output.dtype).expand_as(output)
        return F.binary_cross_entropy_with_logits(output, values, reduction="none").mean(-1)

    def encode(self, target: Tensor) -> Tensor:
        """Return the targets themselves, (M, L)."""
        return target if target.dim() > 1 else target.unsqueeze(-1)

    def regressand(self, target: Tensor) -> Tensor:
        """Return -2 and 2, (M, L)."""
        return 4 * (self.encode(target) - 0.5)

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Sum the losses and the terms of the metrics, in float64."""
        output, values = exact(output, self.encode(target))
        sums = {"loss": self.losses(output, values).sum()}
        if self.outputs == 1:
            sums["accuracy"] = ((output > 0) == (values > 0.5)).to(output.dtype).sum()
        if self._ranks:
            has = (values > 0.5).any(1)
            sums["ranked"] = has.to(output.dtype).sum()
            for name, of in (("recall", recall_at), ("ndcg", ndcg_at)):
                sums[name] = torch.where(has, of(output, values, self.k), 0.0).sum()
        return sums, torch.full_like(sums["loss"], len(target))

    def check_target(self, what: str, target: Tensor) -> None:
        """Check that targets are zeros and ones, (N, L).

        Args:
            what: the name of the targets in error messages.
            target: the targets.

        Raises:
            UserError: where they are not, with the first row that is wrong.

        """
        super().check_target(what, target)
        wrong = torch.nonzero((target != 0) & (target != 1))
        if len(wrong):
            value = target[tuple(wrong[0].tolist())].item()
            raise UserError(
                f"{what} holds {value:g} in row {int(wrong[0][0])}; zeros and ones are expected, a column for each "
                "label: for one label of several give no task, for values task=Regression()"
            )

    def check_learnable(self, what: str, target: Tensor) -> None:
        """Check that some label is true of some rows and false of others; a validation split needs both, too.

        Args:
            what: the name of the targets in error messages.
            target: targets that `check_target` has passed.

        Raises:
            UserError: where every label is true of all rows or of none.

        """
        if len(target) and bool((target.amin(0) == target.amax(0)).all()):
            value = f"{int(target[0])}" if self.outputs == 1 else "the same"
            raise UserError(f"{what} is {value} in every row, so there is nothing to learn")


def _loss(means: Means) -> Tensor:
    return means["loss"]


def _recall(means: Means) -> Tensor:
    return means["recall"] / means["ranked"]


def _ndcg(means: Means) -> Tensor:
    return means["ndcg"] / means["ranked"]
