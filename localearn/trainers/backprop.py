from torch import Tensor

from localearn.data import Batch
from localearn.trainers.base import Trainer


class Backprop(Trainer):
    """The reference: the gradient of the task's mean loss, by reverse-mode differentiation of the net.

    loss = L(net(x), y), x (N, ...); to tell classes apart L is the cross-entropy, y (N,).
    Rumelhart, Hinton, Williams (1986), "Learning representations by back-propagating errors".
    """

    crosses_blocks = True

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Fill `.grad` with the true gradient; return the loss."""
        loss = self.task.loss(self.net(batch.x, *batch.context), batch)
        loss.backward()
        return {"loss": loss.detach()}
