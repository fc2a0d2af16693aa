"""One step of a net: a map with parameters, and what follows it."""

from torch import Tensor, nn


class Block(nn.Module):
    """One step of a net: z = op(h, *context), h' = post(z).

    op: the map with parameters (Linear, Conv2d, GCNConv, ...).
    post: what follows it (normalisation, activation, pooling, dropout); the identity where nothing does.
    """

    def __init__(self, op: nn.Module, post: nn.Module | None = None):
        super().__init__()
        self.op = op
        self.post = nn.Identity() if post is None else post

    def forward(self, h: Tensor, *context: Tensor) -> Tensor:
        """Map h_{k-1}, (N, ...), to h_k, (N, ...)."""
        return self.post(self.op(h, *context))
