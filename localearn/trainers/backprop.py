from torch import Tensor

from localearn.data import Batch
from localearn.trainers.base import Trainer, cross_entropy


class Backprop(Trainer):
    """The reference: the gradient of the mean cross-entropy of the logits, by reverse-mode differentiation of the net.

    loss = CE(net(x), y), x (N, ...), y (N,). Rumelhart, Hinton, Williams (1986), "Learning representations by
    back-propagating errors".
    """

    crosses_blocks = True

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Fill `.grad` with the true gradient; return the loss."""
        loss = cross_entropy(self.net(batch.x, *batch.context), batch)
        loss.backward()
        return {"loss": loss.detach()}
