"""One backward pass through a net that can be taken block by block."""

from collections.abc import Iterator

import torch
from torch import Tensor

from localearn.data import Batch
from localearn.nets import Net


class CutPass:
    """Run a forward pass whose graph is cut between the blocks, so that the backward pass can pause at each of them.

    The gradients are those of `loss.backward()` after an ordinary forward pass, bit for bit: the same operations run,
    and each block's error is passed to the one before it.

    Args:
        net: a net that `can_be_cut`.
        batch: its input and context.

    Attributes:
        logits: the net's output, (N, C), with the readout's graph.

    """

    def __init__(self, net: Net, batch: Batch):
        self._inputs, self._outputs = list[Tensor](), list[Tensor]()
        h = net.stem(batch.x)
        for k in range(net.depth):
            self._inputs.append(_leaf(h))
            h = net.block(k)(self._inputs[-1], *batch.context)
            self._outputs.append(h)
        self._inputs.append(_leaf(h))
        self.logits = net.logits(self._inputs[-1], *batch.context)

    def backward(self, loss: Tensor) -> Iterator[dict[str, Tensor]]:
        """Fill `.grad` of the readout, then of each block, last to first, yielding an empty dict after each of them.

        Args:
            loss: a scalar of `logits`.

        """
        loss.backward()
        del loss
        while self._outputs:
            delta = self._inputs.pop().grad
            yield {}
            output = self._outputs.pop()
            if delta is not None and output.requires_grad:
                torch.autograd.backward(output, delta)
            del output, delta


def can_be_cut(net: Net) -> bool:
    """Return whether `CutPass` is a pass of the net: its forward is Net's own, and its parts share no parameter.

    Args:
        net: the net in question.

    """
    if type(net).forward is not Net.forward or type(net).hidden is not Net.hidden:
        return False
    parts = [*net.blocks, net.readout]
    each = [p for part in parts for p in set(part.parameters())]
    return len(set(each)) == len(each)


def _leaf(h: Tensor) -> Tensor:
    return h.detach().requires_grad_(h.requires_grad)
