"""Small nets on sequences, made of blocks by hand, and batches with padding: what the proofs here stand on."""

import torch
import torch.nn.functional as F
from torch import nn

from localearn import Batch, Block, Net
from localearn.nets import InputSpec, PerPosition, View
from localearn.tasks import LanguageModelling
from localearn.tasks.language import PADDING

V, T, D = 5, 4, 6  # tokens, positions, width


class Embedded(nn.Module):
    """Tokens' and positions' embeddings, (N, T) -> (N, T, D)."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(V, D), nn.Parameter(0.5 * torch.randn(T, D))

    def forward(self, x):
        return self.tokens(x) + self.places[: x.shape[1]]


class Attention(nn.Module):
    """h + causal self-attention of the normalised h, two heads."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix, self.out = nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)

    def forward(self, h):
        q, k, v = self.mix(self.norm(h)).unflatten(-1, (3, 2, D // 2)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return h + self.out(found.transpose(1, 2).flatten(2))


def attentive(view: View | None = None) -> Net:
    """Return a language model of embeddings, attention and a last map of each position; float64."""
    torch.manual_seed(0)
    blocks = [Block(Embedded()), Block(Attention(), nn.Tanh()), Block(nn.Linear(D, D), nn.Tanh())]
    net = Net(blocks, nn.Linear(D, V), takes=InputSpec((T,), vocabulary=V), view=view or PerPosition())
    return net.double().for_task(LanguageModelling(V)) if view is None else net.double()


def plain(depth: int = 2) -> Net:
    """Return a language model that looks at a position alone; float64."""
    torch.manual_seed(0)
    blocks = [Block(Embedded(), nn.Tanh()), *(Block(nn.Linear(D, D), nn.Tanh()) for _ in range(depth - 1))]
    net = Net(blocks, nn.Linear(D, V), takes=InputSpec((T,), vocabulary=V), view=PerPosition())
    return net.double().for_task(LanguageModelling(V))


def values(view: View | None = None) -> Net:
    """Return plain maps of the positions of (N, T, 3) values, to V classes of each or, pooled, of all; float64."""
    torch.manual_seed(0)
    blocks = [Block(nn.Linear(3, D), nn.Tanh()), Block(nn.Linear(D, D), nn.Tanh())]
    net = Net(blocks, nn.Linear(D, V), takes=InputSpec((T, 3)), view=view or PerPosition())
    return net.double().for_task(LanguageModelling(V)) if view is None else net.double()


def padded(rows: int = 6) -> Batch:
    """Return token ids and the next ones; the ends of some rows are padding."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(V, (rows, T + 1), generator=generator)
    target = x[:, 1:].clone()
    for row in range(0, rows, 2):
        target[row, T - 1 - row % 3 :] = PADDING
    return Batch(x[:, :-1], target)


def padded_values(rows: int = 6) -> Batch:
    """Return values for the same targets."""
    generator = torch.Generator().manual_seed(2)
    return Batch(torch.randn(rows, T, 3, generator=generator, dtype=torch.float64), padded(rows).target)


def without_padding(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which positions count, (N, T), and their targets, (E,)."""
    counted = batch.target != PADDING
    return counted, batch.target[counted]
