import math
from typing import Any

import torch
from torch import nn


class EarlyStopping:
    """Keeps a stage's best weights by a validation figure, and says when it has stopped improving.

    monitor: the figure's name in a metrics line; a loss is best where least, an accuracy where greatest.
    patience: epochs in a row without an improvement of more than min_delta, after which `done`; None: never.
    keep: whether to keep the best weights, in host memory, where they do not count as the rule's.
    """

    def __init__(self, monitor: str, patience: int | None, min_delta: float, *, keep: bool):
        self.monitor, self.patience, self.min_delta, self.keep = monitor, patience, min_delta, keep
        self.sign = -1 if monitor.endswith("loss") else 1
        self.best_score = -math.inf
        self.best_epoch = 0
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.reference = -math.inf  # what an epoch must beat by min_delta to count as an improvement
        self.stale = 0

    def update(self, metrics: dict[str, Any], epoch: int, module: nn.Module) -> None:
        """Take in the metrics of an epoch, the module being as it ended."""
        score = self.sign * metrics[self.monitor]
        if score > self.best_score:
            self.best_score, self.best_epoch = score, epoch
            if self.keep:
                self.best_weights = {k: v.detach().to("cpu", copy=True) for k, v in module.state_dict().items()}
        if score > self.reference + self.min_delta:
            self.reference, self.stale = score, 0
        else:
            self.stale += 1

    @property
    def done(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.stale >= self.patience

    def restore(self, module: nn.Module) -> None:
        """Put the best weights into the module, if they were kept."""
        if self.best_weights is not None:
            module.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs."""
        names = ("best_score", "best_epoch", "best_weights", "reference", "stale")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)
        if self.best_weights is not None:
            self.best_weights = {k: v.cpu() for k, v in self.best_weights.items()}
