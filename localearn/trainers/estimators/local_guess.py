from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from localearn.data import Batch
from localearn.nets import Net


class LocalGuess(nn.Module):
    """Guesses where the loss falls: the gradient of a local auxiliary loss of each block, as a unit direction.

        a_k = L(h_k A_k^T + c_k, y), A_k: (C, n_k), k < L;    a_L is the net's own loss L, its head being the readout
        v_k = d a_k / d z_k (each row), or d a_k / d theta_k (all of a block)

    The heads A_k, c_k learn by the gradient of a_k. Fournier et al., arXiv 2306.06968; of its auxiliary nets this is
    the linear one.
    """

    def __init__(self, net: Net):
        super().__init__()
        like = next(net.parameters())
        self.heads = nn.ModuleList(
            nn.Linear(n, net.classes, device=like.device, dtype=like.dtype) for n in net.reads[:-1]
        )

    def direction(self, net: Net, k: int, value: Tensor, after: Sequence[nn.Module], batch: Batch) -> Tensor:
        """Return v at a value of block k, (N, ...), which the layers `after` turn into h_k; fill the head's `.grad`.

        Each row's has length 1, or the batch's where rows are coupled; zero where the auxiliary loss is flat.
        """
        value = value.detach().requires_grad_()
        h = value
        for layer in after:
            h = functional_call(layer, _copies(layer), (h,))
        (v,) = self._gradients(net, k, h, [value], batch)
        over = tuple(range(0 if net.couples_rows() else 1, v.dim()))
        return v / _positive(torch.linalg.vector_norm(v, dim=over, keepdim=True))

    def directions(self, net: Net, batch: Batch) -> dict[str, Tensor]:
        """Return v in all trained parameters, by name, (L, *shape): row k has block k's, of length 1, and zeros.

        The last block's has the readout's in it. The heads' `.grad` is filled.
        """
        trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
        v = {name: p.new_zeros(net.depth, *p.shape) for name, p in trained.items()}
        h = net.stem(batch.x)
        for k in range(net.depth):
            own = (f"blocks.{k}.", "readout.") if k == net.depth - 1 else (f"blocks.{k}.",)
            names = [name for name in trained if name.startswith(own)]
            block = net.block(k)
            h = functional_call(block, _copies(block), (h.detach(), *batch.context))
            found = self._gradients(net, k, h, [trained[name] for name in names], batch)
            if names:
                length = _positive(torch.nn.utils.get_total_norm(found))
                for name, g in zip(names, found, strict=True):
                    v[name][k] = g / length
        return v

    def _gradients(self, net: Net, k: int, h: Tensor, of: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """Return the gradients of a_{k+1} with regard to `of`, and fill those of the block's own head."""
        last = k == net.depth - 1
        own = [] if last else list(self.heads[k].parameters())
        logits = net.logits(h, *batch.context) if last else self.heads[k](net.view(h))
        loss = net.task.loss(logits, batch)
        found = torch.autograd.grad(loss, [*of, *own])
        for p, gradient in zip(own, found[len(of) :], strict=True):
            p.grad = gradient
        return [g.detach() for g in found[: len(of)]]


def _copies(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the module's buffers, so that a guess moves no running statistic."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def _positive(length: Tensor) -> Tensor:
    return length.clamp_min(torch.finfo(length.dtype).tiny)
