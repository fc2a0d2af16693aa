"""DeepFM: embeddings of a table's columns, their products in pairs, and a deep part on top."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.inputs import InputSpec
from localearn.moved import former_names
from localearn.nets.block import Block
from localearn.nets.checks import check_classes, check_row, check_widths, choose
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import chain, draw_weights
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.mlp import NORMS
from localearn.nets.net import Net

_DEVIATION = 0.1  # of the embeddings as they are drawn; that of the first-order weights, too


class DeepFM(Net):
    """Combine a factorisation machine and a deep net on the same embeddings, for rows of categories and of numbers.

    A row has F columns, the first of them codes of categories, the others values. Column i has a first-order weight and
    an embedding, those of its category or, of a value x_i, w_i x_i and v_i x_i:

        l = (w_1 x_1, ..., w_F x_F)                              (N, F), the first order
        f_d = sum_{i<j} (v_i x_i)_d (v_j x_j)_d                  (N, dim), products of columns in pairs
            = ((sum_i v_i x_i)_d^2 - sum_i (v_i x_i)_d^2) / 2    in F instead of F^2 steps
        e_1 = (v_1 x_1, ..., v_F x_F)                            (N, F dim), what the deep part begins with
        e_k = activation(W_k e_{k-1} + b_k)

    The blocks being a chain, each h_k = (l, f, e_k): the factorisation machine's part is computed by the first block
    and passed through the others, so that the readout, and every head that a rule puts on a block, reads all three. The
    published net adds up l, f and one value of the deep part; here the readout weighs them, for each output, and with
    ones at l and f it is the published one.

    Guo et al., arXiv 1703.04247, eq. 1-4; the sum of squares: Rendle (2010), Factorization Machines, eq. 5. It is one
    of the recommenders that direct feedback alignment was shown on: Launay et al., arXiv 2006.12878.

    Args:
        input_shape: (F,), or F.
        classes: C, the number of outputs.
        categories: the number of categories of each of the first columns, which hold codes; empty where all are values.
        dim: the length of an embedding.
        widths: the widths of the deep part, one per block after the first.
        activation: of the deep part, as of `MLP`.
        norm: of the deep part, as of `MLP`.
        dropout: of the deep part, as of `MLP`.
        init: of the deep part, as of `MLP`.

    """

    def __init__(
        self,
        input_shape: tuple[int, ...] | int,
        classes: int,
        *,
        categories: Sequence[int] = (),
        dim: int = 10,
        widths: Sequence[int] = (128, 128),
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.0,
        init: str = "default",
    ):
        shape = check_row("input_shape", input_shape)
        if len(shape) != 1:
            raise UserError(f"DeepFM takes rows of columns, (F,), not {shape}; use dataset=table or interactions")
        takes = InputSpec(shape, categories=tuple(categories))
        (dim,) = check_row("dim", dim)
        columns = shape[0]
        carried = columns + dim
        normalise = choose("norm", norm, NORMS)
        blocks = [Block(ColumnEmbeddings(columns, tuple(categories), dim), Products(columns, dim))]
        for n_in, n_out in itertools.pairwise((columns * dim, *check_widths("widths", widths))):
            post = chain(normalise(n_out), activation_layer(activation), dropout_layer(dropout))
            blocks.append(Block(PassThrough(nn.Linear(n_in, n_out), carried), PassThrough(post, carried)))
        readout = nn.Linear(carried + widths[-1], check_classes(classes))
        draw_weights(init, (*blocks[1:], readout))
        super().__init__(blocks, readout, takes=takes)


class ColumnEmbeddings(nn.Module):
    """Map (N, F) rows to each column's first-order weight and embedding, times its value: (N, F + F dim).

    Values have their weights in one row, as the scales of a normalisation, which act on each of them for itself.
    """

    offsets: Tensor

    def __init__(self, columns: int, categories: tuple[int, ...], dim: int):
        super().__init__()
        self.coded, values = len(categories), columns - len(categories)
        starts = [0, *itertools.accumulate(categories)]
        self.register_buffer("offsets", torch.tensor(starts[:-1], dtype=torch.long), persistent=False)
        self.first = nn.Embedding(starts[-1], 1) if categories else None
        self.vectors = nn.Embedding(starts[-1], dim) if categories else None
        self.value_first = nn.Parameter(torch.empty(values)) if values else None
        self.value_vectors = nn.Parameter(torch.empty(values * dim)) if values else None
        self.dim = dim
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=_DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        """Return (w_i x_i of all columns, v_i x_i of all columns), (N, F + F dim)."""
        first, vectors = [], []
        if self.first is not None and self.vectors is not None:
            codes = x[:, : self.coded].long() + self.offsets
            first.append(self.first(codes).flatten(1))
            vectors.append(self.vectors(codes).flatten(1))
        if self.value_first is not None and self.value_vectors is not None:
            values = x[:, self.coded :]
            first.append(values * self.value_first)
            vectors.append(values.repeat_interleave(self.dim, 1) * self.value_vectors)
        return torch.cat([*first, *vectors], 1)


class Products(nn.Module):
    """Insert the products of the embeddings in pairs between first order and embeddings: (N, F + F dim) to h_1."""

    def __init__(self, columns: int, dim: int):
        super().__init__()
        self.columns, self.dim = columns, dim

    def forward(self, z: Tensor) -> Tensor:
        """Return (l, f, e_1), (N, F + dim + F dim)."""
        first, vectors = z[:, : self.columns], z[:, self.columns :]
        each = vectors.unflatten(1, (self.columns, self.dim))
        products = (each.sum(1).square() - each.square().sum(1)) / 2
        return torch.cat([first, products, vectors], 1)


class PassThrough(nn.Module):
    """Apply a module to all but the first `carried` values of a row, which are passed on unchanged."""

    def __init__(self, module: nn.Module, carried: int):
        super().__init__()
        self.module, self.carried = module, carried

    def forward(self, h: Tensor) -> Tensor:
        """Return (h[:carried], module(h[carried:])), (N, carried + n)."""
        return torch.cat([h[:, : self.carried], self.module(h[:, self.carried :])], 1)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
