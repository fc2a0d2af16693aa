"""Language modelling: the output is logits at every position, the target the token that follows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.errors import UserError
from localearn.tasks.base import Means, Metric, Task

PADDING = -100  # the target of a position that does not count; torch's own ignore_index


@dataclass(frozen=True)
class LanguageModelling(Task):
    """Predict the next token: the output is (N, T, V) logits, the target (N, T) int64, or `PADDING`.

        L_i = -log softmax(o_i)[y_i]        of position i; the loss is the mean over the positions that count

    An element is a position; a padded one has no loss, no error and no part in a metric. Metrics: `bits_per_character`
    = mean L / (ln 2 * characters_per_token), `perplexity` = exp(mean L) for each token, and `token_accuracy`, the share
    of positions whose largest logit is the next token's.

    `has_classes` is False, since it says that each row has one label; `exclusive` is True: a position's wrong tokens
    are V - 1, and `encode` is one-hot.

    Args:
        outputs: V, the number of tokens.
        characters_per_token: the mean number of characters that a token stands for.

    """

    outputs: int
    characters_per_token: float = 1.0
    per_position: ClassVar[bool] = True
    adds_up: ClassVar[bool] = True
    exclusive: ClassVar[bool] = True  # pyright: ignore[reportIncompatibleVariableOverride]
    target_dtype: ClassVar[torch.dtype] = torch.int64

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise UserError(f"a vocabulary has 1 token or more, not {self.outputs}")
        if not 0 < self.characters_per_token < math.inf:
            raise UserError(f"characters_per_token must be positive, not {self.characters_per_token}")

    @property
    def metrics(self) -> tuple[Metric, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The metrics; a run is watched by the first one."""
        return (
            Metric("bits_per_character", "min", "value", self._bits),
            Metric("perplexity", "min", "value", _perplexity),
            Metric("token_accuracy", "max", "fraction"),
        )

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy of each position, (..., N, T), of outputs (..., N, T, V); 0 where it is padded."""
        tokens = target.expand(output.shape[:-1])
        return F.cross_entropy(output.flatten(0, -2), tokens.flatten(), reduction="none").view_as(tokens)

    def mean_loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy of the positions that count, a scalar."""
        return F.cross_entropy(output.flatten(0, -2), target.flatten())

    def encode(self, target: Tensor) -> Tensor:
        """Return the tokens as one-hot rows, (N, T, V) float32, zero where padded, without waiting for the device."""
        return (target.unsqueeze(-1) == torch.arange(self.outputs, device=target.device)).float()

    def counted(self, target: Tensor) -> Tensor:
        """Return the mask of the positions that are not padded, (N, T) bool."""
        return target != PADDING

    def check_learnable(self, what: str, target: Tensor) -> None:
        """Check that not the same token follows everywhere.

        Args:
            what: the name of the targets in error messages.
            target: (N, T) token ids that `check_target` has passed.

        Raises:
            UserError: where it does.

        """
        tokens = target[target != PADDING]
        if len(tokens) > 1 and bool(tokens.min() == tokens.max()):
            raise UserError(f"{what} is token {int(tokens[0])} at every position, so there is nothing to learn")

    def pool(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the log of the sum of the predictors' token probabilities, (N, T, V)."""
        return torch.stack([logits.log_softmax(-1) for logits in outputs]).logsumexp(0)

    def measure(self, output: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Sum the cross-entropies and the hits over the positions that count, and count these."""
        loss = F.cross_entropy(output.flatten(0, -2), target.flatten(), reduction="sum")
        hits = (output.argmax(-1) == target).sum().to(loss.dtype)  # PADDING is no token's number
        return {"loss": loss, "token_accuracy": hits}, (target != PADDING).sum().to(loss.dtype)

    def check_target(self, what: str, target: Tensor) -> None:
        """Check that targets are (N, T) int64 in 0..V-1, or `PADDING`, at least one of which counts.

        Args:
            what: the name of the targets in error messages.
            target: the token ids.

        Raises:
            UserError: where they are not.

        """
        if target.dtype != torch.int64 or target.ndim != 2:
            has = f"{target.dtype} with shape {tuple(target.shape)}"
            raise UserError(f"{what} is {has}; int64 tokens, (N, T), are expected for language modelling")
        counted = target[target != PADDING]
        if target.numel() and not counted.numel():
            raise UserError(f"{what} is padded at every position, so there is nothing to be predicted")
        if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= self.outputs):
            wrong = int(counted.min()) if int(counted.min()) < 0 else int(counted.max())
            raise UserError(f"{what} holds {wrong}; tokens run from 0 to {self.outputs - 1}, or {PADDING} for padding")

    def _bits(self, means: Means) -> Tensor:
        return means["loss"] / (math.log(2) * self.characters_per_token)


def _perplexity(means: Means) -> Tensor:
    return means["loss"].exp()
