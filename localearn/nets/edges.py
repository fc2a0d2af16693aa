"""What a graph convolution makes of the edges before it looks at a node: made once for a graph, not in every pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.weak import WeakTensorKeyDictionary

from localearn.quiet import torch_geometric

# By the edges: by who prepared them, for how many nodes and what else, what came of it.
_prepared: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


@torch.no_grad()
def kept(prepare: Callable[..., Any], edge_index: Tensor, *more: Any) -> Any:
    """Return prepare(edge_index, *more), kept for as long as these edges are there and are not changed.

    A mask's `nonzero` is in it, for which the host waits; so no update that prepared its edges anew could be recorded
    as a CUDA graph.
    """
    traced = torch.compiler.is_compiling() or is_functorch_wrapped_tensor(edge_index)
    if traced or edge_index.is_inference():  # which are made anew each time, or tell no change
        return prepare(edge_index, *more)
    results: dict[Any, tuple[int, Any]] = _prepared.setdefault(edge_index, {})  # pyright: ignore[reportAssignmentType]
    key = (prepare, *more)
    if key not in results or results[key][0] != edge_index._version:
        results[key] = edge_index._version, prepare(edge_index, *more)
    return results[key][1]


def with_loops(conv: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give a convolution that adds none itself the edges with one loop a node: a forward pre-hook."""
    x, edge_index, *rest = arguments
    return x, kept(_looped, edge_index, x.shape[-2]), *rest


def normalised(conv: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give a GCNConv that normalises nothing itself loops and weights, D^-1/2 (A + I) D^-1/2: a forward pre-hook.

    Kipf, Welling, arXiv 1609.02907, equation 2.
    """
    if len(arguments) != 2:
        raise TypeError(f"a GNN's convolution takes x and edge_index, not {len(arguments)} arguments")
    x, edge_index = arguments
    return x, *kept(_weighted, edge_index, x.shape[-2], x.dtype)


def _looped(edge_index: Tensor, nodes: int) -> Tensor:
    utils = torch_geometric("utils")
    # On the meta device, which has no values, every node is taken to have no loop of its own.
    without = edge_index if edge_index.is_meta else utils.remove_self_loops(edge_index)[0]
    return utils.add_self_loops(without, num_nodes=nodes)[0]


def _weighted(edge_index: Tensor, nodes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if edge_index.is_meta:
        looped = _looped(edge_index, nodes)
        return looped, torch.empty(looped.shape[1], dtype=dtype, device="meta")
    return torch_geometric("nn.conv.gcn_conv").gcn_norm(edge_index, None, nodes, dtype=dtype)
