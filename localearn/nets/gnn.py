"""Graph nets: convolutions of several kinds, the edges they share, and a convolution cut at its aggregation."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.weak import WeakTensorKeyDictionary

from localearn.errors import UserError
from localearn.extras import torch_geometric
from localearn.moved import former_names
from localearn.nets.block import Block
from localearn.nets.checks import check_classes, check_row, check_widths, choose
from localearn.nets.layers import activation as activation_layer
from localearn.nets.layers import chain
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net


class GNN(Net):
    """Stack graph blocks: a convolution of torch_geometric's, then activation and dropout; then a readout.

    Args:
        input_shape: (features,), or their number.
        classes: C.
        widths: the hidden widths n_1..n_L.
        conv: gcn (Kipf, Welling 2017), sage (Hamilton et al. 2017) or gat (Velickovic et al. 2018).
        activation: as of `MLP`.
        dropout: the probability of dropping a value, also applied to the input features, as those papers do.
        heads: of gat, the number of attention heads, whose outputs are concatenated.
        readout: linear, per node, or conv, a convolution to the classes (Kipf's last layer), which reads the
            neighbours' h_L too; rules whose readout must be Linear refuse it.

    Example:
        net = GNN((1433,), 7, widths=(16,), conv="sage")

    """

    kind = "graph"

    def __init__(
        self,
        input_shape: tuple[int, ...] | int,
        classes: int,
        *,
        widths: Sequence[int] = (64, 64),
        conv: str = "gcn",
        activation: str = "relu",
        dropout: float = 0.5,
        heads: int = 8,
        readout: str = "linear",
    ):
        shape = check_row("input_shape", input_shape)
        if len(shape) != 1:
            raise UserError(f"a GNN takes a graph's nodes, rows of shape (features,), not {shape}; use net=cnn or mlp")
        sizes = (*shape, *check_widths("widths", widths))
        blocks = []
        for n_in, n_out in itertools.pairwise(sizes):
            post = chain(activation_layer(activation), dropout_layer(dropout))
            blocks.append(Block(_conv(conv, n_in, n_out, heads), post))
        check_classes(classes)
        convolves = choose("readout", readout, {"linear": False, "conv": True})
        last = _conv(conv, sizes[-1], classes, 1) if convolves else nn.Linear(sizes[-1], classes)
        stem = dropout_layer(dropout)
        super().__init__(blocks, last, input_shape=shape, stem=stem, graph=True, readout_takes_context=convolves)


def _conv(name: str, n_in: int, n_out: int, heads: int) -> nn.Module:
    pyg = torch_geometric("nn")
    layer: Any = choose("conv", name, {"gcn": pyg.GCNConv, "sage": pyg.SAGEConv, "gat": pyg.GATConv})
    if name == "gcn":
        conv = layer(n_in, n_out, normalize=False)
        conv.register_forward_pre_hook(normalised)
        return conv
    if name == "sage":
        return layer(n_in, n_out)
    if not isinstance(heads, int) or heads < 1 or n_out % heads:
        raise UserError(f"gat concatenates heads: a width must be a multiple of heads; {n_out} is not one of {heads}")
    conv = layer(n_in, n_out // heads, heads=heads, add_self_loops=False)
    conv.register_forward_pre_hook(with_loops)
    return conv


# Results by the edges, and then by the function that prepared them and its other arguments (the number of nodes, ...).
_prepared: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


@torch.no_grad()
def cached(prepare: Callable[..., Any], edge_index: Tensor, *more: Any) -> Any:
    """Return prepare(edge_index, *more), cached for as long as the edges exist and are not changed.

    Preparing takes a mask's `nonzero`, a host synchronisation, so that an update that prepared its edges again could
    not be captured in a CUDA graph.

    Args:
        prepare: the function whose result is cached.
        edge_index: (2, E) int64, the key.
        more: the other arguments, a part of the key.

    """
    traced = torch.compiler.is_compiling() or is_functorch_wrapped_tensor(edge_index)
    if traced or edge_index.is_inference():  # which are created again each time, or do not record changes
        return prepare(edge_index, *more)
    results: dict[Any, tuple[int, Any]] = _prepared.setdefault(edge_index, {})  # pyright: ignore[reportAssignmentType]
    key = (prepare, *more)
    if key not in results or results[key][0] != edge_index._version:
        results[key] = edge_index._version, prepare(edge_index, *more)
    return results[key][1]


def with_loops(conv: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add one self-loop per node to the edges of a convolution that adds none itself: a forward pre-hook.

    Args:
        conv: the convolution.
        arguments: its x, (N, D), its edges, (2, E), and others.

    """
    x, edge_index, *rest = arguments
    return x, cached(_with_loops, edge_index, x.shape[-2]), *rest


def normalised(conv: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add self-loops and the weights D^-1/2 (A + I) D^-1/2 to the edges of a GCNConv: a forward pre-hook.

    Kipf, Welling, arXiv 1609.02907, equation 2.

    Args:
        conv: a GCNConv with normalize=False.
        arguments: its x, (N, D), and its edges, (2, E).

    """
    if len(arguments) != 2:
        raise TypeError(f"a GNN's convolution takes x and edge_index, not {len(arguments)} arguments")
    x, edge_index = arguments
    return x, *cached(_weighted, edge_index, x.shape[-2], x.dtype)


def _with_loops(edge_index: Tensor, nodes: int) -> Tensor:
    utils = torch_geometric("utils")
    # On the meta device, which has no values, every node is taken to have no loop of its own.
    without = edge_index if edge_index.is_meta else utils.remove_self_loops(edge_index)[0]
    return utils.add_self_loops(without, num_nodes=nodes)[0]


def _weighted(edge_index: Tensor, nodes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if edge_index.is_meta:
        looped = _with_loops(edge_index, nodes)
        return looped, torch.empty(looped.shape[1], dtype=dtype, device="meta")
    return torch_geometric("nn.conv.gcn_conv").gcn_norm(edge_index, None, nodes, dtype=dtype)


_COLUMNS = 256  # that are summed at a time, for every edge has a row of them meanwhile


@dataclass(frozen=True)
class Aggregation:
    """Split a graph convolution in two: conv(h, edge_index) = combine(gather(h, edge_index)), to rounding.

    Attributes:
        gather: maps h, (N, n), and edge_index, (2, E), to what is summed over neighbours, (N, times * n).
        combine: maps that to z, (N, n'), each row by itself.
        times: the number of values that gather makes of one.

    """

    gather: Callable[[Tensor, Tensor], Tensor]
    combine: Callable[[Tensor], Tensor]
    times: int = 1


def aggregation(op: Any) -> Aggregation | None:
    """Return a block's op as an aggregation and a linear map, or None where it is no such product, as attention is not.

        GCN     z = (D^-1/2 (A + I) D^-1/2 h) W^T + b
        SAGE    z = (mean over neighbours of h) W^T + b + h V^T

    It splits the convolutions that `GNN` builds, with their parameters, and no others, whose options are unknown here.

    Args:
        op: the block's op.

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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
