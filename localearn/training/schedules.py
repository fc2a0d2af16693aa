from collections.abc import Sequence

import torch

from localearn.errors import UserError


class StepWithDecay(torch.optim.lr_scheduler.MultiStepLR):
    """The rate is multiplied by gamma at each milestone, and the weight decay once by decay_gamma, after decay_epochs.

    Product feedback alignment begins with a strong decay, which makes its matrices forget how they were drawn. The
    decay stands in the optimizer's parameter groups and is saved and resumed with them.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        decay_gamma: float = 0.02,
        decay_epochs: int = 1,
    ):
        if decay_epochs < 1:
            raise UserError(f"decay_epochs must be 1 or more, not {decay_epochs}")
        self.decay_gamma, self.decay_epochs = decay_gamma, decay_epochs
        super().__init__(optimizer, list(milestones), gamma)

    def step(self, epoch: int | None = None) -> None:
        """End an epoch."""
        super().step(epoch)
        if self.last_epoch == self.decay_epochs:
            for group in self.optimizer.param_groups:
                group["weight_decay"] *= self.decay_gamma
