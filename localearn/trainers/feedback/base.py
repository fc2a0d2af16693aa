"""The family of rules that give each block a teaching signal in place of its gradient."""

from abc import abstractmethod
from collections.abc import Iterator

from torch import Tensor

from localearn.data import Batch
from localearn.trainers.base import Trainer, accumulate_grad
from localearn.trainers.phases import Metrics, completed


class FeedbackTrainer(Trainer):
    """Define a rule whose readout follows the true gradient, and whose block k a teaching signal at its output h_k.

        e = d loss / d o                                  (N, C); (softmax(o) - Y) / N of classes; zero without a target
                                                           or where padded; (N, T, C) of outputs of positions
        delta_k = signal(k, e, ...)                        in place of d loss / d h_k
        d theta_k = (d h_k / d theta_k)^T delta_k          exact within the block, its input being a constant

    A rule defines how the error reaches a block: `signal`.

    Args:
        net: any net.

    """

    @abstractmethod
    def signal(self, k: int, error: Tensor, h: Tensor) -> Tensor:
        """Return the teaching signal at block k's output, shaped as h.

        Args:
            k: the block, 0..L-1.
            error: e, (N, C), or (N, T, C) of positions.
            h: the block's output, (N, *shapes[k]), detached.

        """

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` from the teaching signals, last block first; return the loss."""
        return completed(self.by_block(batch))

    def by_block(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` as `gradients` does, pausing after the readout and after each block."""
        outputs = []
        h = self.net.stem(batch.x)
        for k in range(self.net.depth):
            h = self.net.block(k)(h.detach(), *batch.context)
            outputs.append(h)
        logits = self.net.logits(h.detach(), *batch.context)
        loss, error = self.task.error(logits, batch)
        accumulate_grad(logits, error)
        yield {"loss": loss}
        while outputs:
            h = outputs.pop()  # popped, so that a block's graph is freed once it has been used
            k = len(outputs)
            accumulate_grad(h, self.signal(k, error, h.detach()))
            yield {}
