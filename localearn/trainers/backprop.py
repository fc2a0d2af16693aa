from collections.abc import Iterator

from localearn.data import Batch
from localearn.trainers.backward import CutPass, can_be_cut
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Metrics, Parts


class Backprop(Trainer):
    """Train by backpropagation, the reference: reverse-mode differentiation of the task's mean loss through the net.

        loss = L(net(x), y)        x (N, ...); for classification L is the cross-entropy, y (N,)

    Rumelhart, Hinton, Williams (1986), "Learning representations by back-propagating errors".

    Args:
        net: any net.

    """

    serves_pairs = True
    crosses_blocks = True

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` with the true gradient; return the loss."""
        loss = self.task.loss(self.net(batch.x, *batch.context), batch)
        loss.backward()
        return {"loss": loss.detach()}

    def by_block(self, batch: Batch) -> Parts:
        """Fill `.grad` with the true gradient, pausing at each block on the way back."""
        return self._by_block(batch) if can_be_cut(self.net) else self.gradients(batch)

    def _by_block(self, batch: Batch) -> Iterator[Metrics]:
        cut = CutPass(self.net, batch)
        loss = self.task.loss(cut.logits, batch)
        yield from cut.backward(loss)
        yield {"loss": loss.detach()}
