"""A trained rule's activities over rows of its data, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from localearn.analysing.measures import hoyer
from localearn.data import Data, Split
from localearn.trainers import Trainer

WIDEST_INPUT = 4096  # values of a row that a probe of the input still reads


@dataclass(frozen=True, slots=True)
class Activities:
    """The blocks' outputs for some rows of a split, on the CPU.

    Of a row a unit is a value of a vector; of maps a channel and of a sequence a feature, whose activity is the mean
    over places or positions.

    Attributes:
        labels: (N,) int64.
        predicted: (N,) int64, the class that the rule predicts.
        states: of each block the units' activities, (N, n_k).
        sparsity: of each block Hoyer's sparsity of each row, (N,), of all of its values.
        lowest: of each block every unit's least value, (n_k,), at any place of any row.
        highest: of each block every unit's greatest value, (n_k,), at any place of any row.
        inputs: (N, n), the rows themselves, or None where they are token ids or too wide for a probe.

    """

    labels: Tensor
    predicted: Tensor
    states: tuple[Tensor, ...]
    sparsity: tuple[Tensor, ...]
    lowest: tuple[Tensor, ...]
    highest: tuple[Tensor, ...]
    inputs: Tensor | None


@torch.no_grad()
def activities(trainer: Trainer, data: Data, split: Split, rows: int, batch_size: int = 1000) -> Activities:
    """Return a rule's activities over rows of a split.

    Args:
        trainer: the rule, in evaluation mode, and on the data's device.
        data: its data.
        split: whose rows.
        rows: at most so many, which are drawn, always the same ones.
        batch_size: rows at once.

    """
    depth = trainer.net.depth
    labels, predicted, inputs = list[Tensor](), list[Tensor](), list[Tensor]()
    states: list[list[Tensor]] = [[] for _ in range(depth)]
    sparsity: list[list[Tensor]] = [[] for _ in range(depth)]
    ends: list[list[Tensor]] = [[] for _ in range(depth)]
    reads_input = data.vocabulary is None and data.task.has_classes and _width(data) <= WIDEST_INPUT
    for x, context, index, target in _drawn(data, split, rows, batch_size):
        labels.append(target)
        predicted.append(trainer.predict(x, *context)[index].argmax(1).cpu())
        if reads_input:
            inputs.append(x[index].flatten(1).float().cpu())
        for k, h in enumerate(trainer.hidden_states(x, *context)):
            h = h[index].float().cpu()
            by_unit = _by_unit(h)
            states[k].append(by_unit.mean(2))
            sparsity[k].append(hoyer(h))
            ends[k].append(torch.stack([by_unit.amin((0, 2)), by_unit.amax((0, 2))]))
    extremes = [torch.stack(of_block) for of_block in ends]
    return Activities(
        torch.cat(labels),
        torch.cat(predicted),
        tuple(torch.cat(of_block) for of_block in states),
        tuple(torch.cat(of_block) for of_block in sparsity),
        tuple(of_block[:, 0].amin(0) for of_block in extremes),
        tuple(of_block[:, 1].amax(0) for of_block in extremes),
        torch.cat(inputs) if inputs else None,
    )


def _width(data: Data) -> int:
    return torch.Size(data.input_shape).numel()


def _by_unit(h: Tensor) -> Tensor:
    """Return h as (N, n, places): a vector's values with one place, maps (N, n, H, W), sequences (N, T, n)."""
    if h.dim() == 3:
        return h.transpose(1, 2)
    return h.flatten(2) if h.dim() > 3 else h.unsqueeze(2)


def _drawn(
    data: Data, split: Split, rows: int, batch_size: int
) -> Iterator[tuple[Tensor, tuple[Tensor, ...], Tensor, Tensor]]:
    """Yield x, its context, the rows of x that were drawn, and their labels, on the CPU.

    A graph's x is all of its nodes, for what a node's state is depends on the others.
    """
    size = data.sizes[split]
    chosen = torch.zeros(size, dtype=torch.bool)
    chosen[torch.randperm(size, generator=torch.Generator().manual_seed(0))[:rows]] = True
    start = 0
    for batch in data.batches(split, batch_size):
        own = chosen[start : start + len(batch.target)].nonzero().squeeze(1).to(batch.target.device)
        start += len(batch.target)
        target = batch.target[own].cpu()
        if batch.index is not None:
            yield batch.x, batch.context, batch.index[own], target
        elif len(own):
            yield batch.x[own], batch.context, torch.arange(len(own), device=own.device), target
