"""Schedules of the learning rate that torch.optim does not have."""

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from localearn.errors import UserError


class CoolDown(LRScheduler):
    """Keeps each group's rate for a part of the epochs, then lets it fall along a line that meets 0 after the last one.

    epochs: how many there are. start: the part of them, in [0, 1), after which the rate falls.
    Stepped once an epoch: the rate of epoch e, counted from 0, is lr * min(1, (epochs - e) / (epochs * (1 - start))).
    """

    def __init__(self, optimizer: Optimizer, epochs: int, start: float = 0.5):
        if epochs < 1 or not 0 <= start < 1:
            raise UserError(f"cool_down needs epochs >= 1 and a start in [0, 1), not {epochs} and {start}")
        self.epochs, self.start = epochs, start
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each group in the epoch that begins."""
        left = max(self.epochs - self.last_epoch, 0) / (self.epochs * (1 - self.start))
        return [rate * min(1.0, left) for rate in self.base_lrs]
