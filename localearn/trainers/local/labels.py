"""Labels as a part of the input, and draws of wrong labels."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from localearn.data import Batch
from localearn.moved import former_names
from localearn.nets.gnn import cached


def one_hot(y: Tensor, classes: int) -> Tensor:
    """Return labels as one-hot rows, boolean (M, ..., C), without waiting for the device.

    Args:
        y: labels, (M, ...).
        classes: C.

    """
    return y.unsqueeze(-1) == torch.arange(classes, device=y.device)


def label_rows(batch: Batch, y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """Return the label that each row of a batch carries, (N, C), or (N, T, C) of positions: one-hot where it has one.

    A graph's other nodes carry the neutral label, whatever their own is: it is never read.

    Args:
        batch: the batch, for its rows.
        y: labels, (M,), or of positions (N, T).
        classes: C.
        dtype: the result's.

    """
    shown = one_hot(y, classes).to(dtype)
    if batch.nodes is None:
        return shown
    return neutral_rows(len(batch.x), shown, classes).index_copy(0, batch.nodes, shown)


def neutral_rows(rows: int, like: Tensor, classes: int, *positions: int) -> Tensor:
    """Return the neutral label, 1/C in each of C places, for every row and position.

    Args:
        rows: N.
        like: a tensor of the result's dtype and device.
        classes: C.
        positions: T, where each position has one.

    """
    return like.new_full((rows, *positions, classes), 1 / classes)


def embed(h: Tensor, labels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return h_0, (N, ...), with its labels, as a net takes it whose rows have a given shape.

    Where h has as many entries, its first C are written over; else C channels are appended, constant over an image's
    places, which are the features of a vector, a node or, where the net's first axis is the data's, of each position of
    a sequence (N, T, D). Labels of positions are a position's own.

    Args:
        h: the rows, (N, ...).
        labels: (N, C), or (N, T, C) of positions.
        shape: of a row that the net takes.

    """
    classes = labels.shape[-1]
    appended = math.prod(h.shape[1:]) != math.prod(shape)
    if labels.dim() == 3:
        return torch.cat([h, labels] if appended else [labels, h[..., classes:]], dim=-1)
    if not appended:
        return torch.cat([labels, h.flatten(1)[:, classes:]], dim=1).view(h.shape)
    if h.dim() == 3 and shape[0] == h.shape[1]:
        return torch.cat([h, labels.unsqueeze(1).expand(-1, h.shape[1], -1)], dim=-1)
    planes = labels.view(*labels.shape, *(1,) * (h.dim() - 2)).expand(*labels.shape, *h.shape[2:])
    return torch.cat([h, planes], dim=1)


def duplicate_context(context: tuple[Tensor, ...], rows: int) -> tuple[Tensor, ...]:
    """Return the context of a batch stacked upon itself: a graph's edges, and those of its copy, `rows` nodes on.

    Args:
        context: the batch's.
        rows: N, the graph's nodes.

    """
    return tuple(cached(_duplicate_edges, edges, rows) for edges in context)


def _duplicate_edges(edges: Tensor, rows: int) -> Tensor:
    return torch.cat([edges, edges + rows], dim=1)


def uniform_wrong_labels(y: Tensor, classes: int) -> Tensor:
    """Draw for each label one of the C - 1 others, each as likely.

    Args:
        y: labels, (M, ...).
        classes: C.

    """
    return (y + torch.randint_like(y, 1, classes)) % classes


def hard_wrong_labels(y: Tensor, logits: Tensor) -> Tensor:
    """Draw for each label another one with the probability that softmax of its logits gives it.

    Args:
        y: labels, (M, ...).
        logits: (M, ..., C).

    """
    # The largest of logits with Gumbel noise is such a draw; torch.multinomial would make the host wait for it.
    noisy = logits - torch.empty_like(logits).exponential_().log()
    return noisy.scatter(-1, y.unsqueeze(-1), -math.inf).argmax(-1)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
