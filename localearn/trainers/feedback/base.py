"""Rules that send the output error back by paths of their own."""

from abc import abstractmethod

import torch
from torch import Tensor

from localearn.data import Batch
from localearn.trainers.base import Trainer, cross_entropy


class FeedbackTrainer(Trainer):
    """The readout follows the true gradient; block k follows a teaching signal at its output h_k.

        e = d loss / d logits = (softmax(o) - Y) / N      (N, C); zero in rows without a label
        delta_k = signal(k, e, ...)                        in place of d loss / d h_k
        d theta_k = (d h_k / d theta_k)^T delta_k          exact within the block, its input being a constant
    """

    @abstractmethod
    def signal(self, k: int, error: Tensor, h: Tensor) -> Tensor:
        """Return the teaching signal at the output h of block k, shaped as h, (N, *shapes[k]), from the error, (N, C)."""

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Fill `.grad` from the teaching signals, last block first; return the loss."""
        outputs = []
        h = self.net.stem(batch.x)
        for block in self.net.blocks:
            h = block(h.detach(), *batch.context)
            outputs.append(h)
        logits = self.net.readout(h.detach().flatten(1))
        logits.retain_grad()
        loss = cross_entropy(logits, batch)
        loss.backward()
        error = logits.grad
        assert error is not None
        while outputs:
            h = outputs.pop()  # popped, so that a block's graph is freed once it has been used
            k = len(outputs)
            torch.autograd.backward(h, self.signal(k, error, h.detach()))
        return {"loss": loss.detach()}
