"""A graph convolution cut in two: the sum over neighbours, which has no parameters, and the linear map after it.

Where a convolution's input is fixed, as in a greedy phase, the sum need be computed only once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.nets.edges import normalised
from localearn.quiet import torch_geometric

_COLUMNS = 256  # that are summed at a time, for every edge has a row of them meanwhile


@dataclass(frozen=True)
class Aggregation:
    """The two halves of a convolution: conv(h, edge_index) = combine(gather(h, edge_index)), to rounding.

    gather: from h, (N, n), and edge_index, (2, E), to what is summed over neighbours, (N, times * n).
    combine: from that to z, (N, n'); each row for itself.
    times: how many values gather makes of one.
    """

    gather: Callable[[Tensor, Tensor], Tensor]
    combine: Callable[[Tensor], Tensor]
    times: int = 1


def aggregation(op: Any) -> Aggregation | None:
    """Return a block's op as an aggregation and a linear map; None where it is no such product, as attention is none.

        GCN     z = (D^-1/2 (A + I) D^-1/2 h) W^T + b
        SAGE    z = (mean over neighbours of h) W^T + b + h V^T

    It takes the convolutions that `GNN` builds, with their parameters, and no others, whose options are unknown here.
    """
    pyg = torch_geometric("nn")
    if isinstance(op, pyg.GCNConv) and normalised in op._forward_pre_hooks.values():
        return Aggregation(lambda h, edges: _gcn(op, h, edges), lambda a: F.linear(a, op.lin.weight, op.bias))
    plain = isinstance(op, pyg.SAGEConv) and op.aggr == "mean" and op.root_weight
    if plain and not (op.normalize or op.project):

        def combine(a: Tensor) -> Tensor:
            mean, own = a.chunk(2, dim=1)
            return op.lin_l(mean) + op.lin_r(own)

        return Aggregation(_sage, combine, times=2)
    return None


def _gcn(op: nn.Module, h: Tensor, edge_index: Tensor) -> Tensor:
    h, edges, weights = normalised(op, (h, edge_index))
    return _summed(h, edges, weights)


def _sage(h: Tensor, edge_index: Tensor) -> Tensor:
    degrees = h.new_zeros(len(h)).index_add(0, edge_index[1], h.new_ones(edge_index.shape[1]))
    return torch.cat([_summed(h, edge_index) / degrees.clamp_min(1).unsqueeze(1), h], dim=1)


def _summed(h: Tensor, edge_index: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return for each node the sum of h, (N, n), over the edges that lead to it."""
    source, target = edge_index
    parts = []
    for columns in h.split(_COLUMNS, dim=1):
        sent = columns.index_select(0, source)
        sent = sent if weights is None else sent * weights.unsqueeze(1)
        parts.append(torch.zeros_like(columns).index_add(0, target, sent))
    return torch.cat(parts, dim=1)
