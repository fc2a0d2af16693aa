"""Evaluation of a split by the metrics of a task."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from localearn.data import Batch, Data, Split
from localearn.moved import former_names
from localearn.tasks import Task
from localearn.training.generator import give_way

Measure = Callable[[Batch], tuple[Tensor, Tensor | None]]


@torch.no_grad()
def evaluate(
    measure: Measure,
    task: Task,
    data: Data,
    split: Split,
    batch_size: int,
    all_reduce: Callable[[list[Tensor]], None],
    all_gather: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> dict[str, float]:
    """Return the mean `loss` and the task's metrics over a split, by name, with one read of the device.

    Args:
        measure: The function that `measure_of` returned.
        task: The task, whose metrics it sums.
        data: The data set, or this rank's part of its rows.
        split: "train", "val" or "test".
        batch_size: Rows a step, 1 or more.
        all_reduce: Sums the tensors over the ranks, in place, where the data are one rank's part of the rows.
        all_gather: Returns the rows of all ranks, in the same order for outputs and targets.

    """
    empty_sums: dict[str, Tensor] = {}
    totals: Tensor | None = None
    collected: list[tuple[Tensor, Tensor]] = []  # outputs and targets, for a task that needs those of the full split
    for batch in data.batches(split, batch_size):
        if totals is None:  # measures no rows, since a rank may have none: names, shapes and dtype of the sums
            positions = batch.target.shape[1:] if task.per_position else (2,) if task.of_pairs else ()
            positions = (1,) if task.pools_positions else positions
            empty = torch.zeros(0, *positions, task.outputs, device=batch.target.device)
            empty_sums, elements = task.measure(empty, batch.target[:0])
            totals = _flattened(empty_sums, elements)
            collected = [(empty, batch.target[:0])]
        if len(batch.target):
            sums, output = measure(batch)
            totals = totals + sums
            if output is not None:  # copied, since the next replay of a graph overwrites it
                collected.append((output.clone(), batch.target))
        give_way()
    assert totals is not None
    all_reduce([totals])
    means = (totals[:-1] / totals[-1]).split([value.numel() for value in empty_sums.values()])
    shaped = {name: mean.view(empty_sums[name].shape) for name, mean in zip(empty_sums, means, strict=True)}
    if task.needs_whole:
        outputs, targets = zip(*(collected[1:] or collected), strict=True)
        figures = task.finish(shaped, all_gather(torch.cat(outputs)), all_gather(torch.cat(targets)))
    else:
        figures = task.finish(shaped)
    return dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))


def measure_of(scores: Callable[..., Tensor], autocast: torch.autocast, task: Task) -> Measure:
    """Return a function from a batch to the sums of a task's metrics.

    Args:
        scores: Returns the (N, outputs) scores of rows x and their context.
        autocast: The context of the run's precision.
        task: The task that measures the scores.

    Returns:
        A function of a batch that returns the sums and the number of elements in one vector, and the outputs
        themselves, (M, outputs), where the task needs those of the full split, else None.

    """

    def measure(batch: Batch) -> tuple[Tensor, Tensor | None]:
        with autocast:
            rows = batch.select(scores(batch.x, *batch.context)).float()
        return _flattened(*task.measure(rows, batch.target)), rows if task.needs_whole else None

    return measure


def _flattened(sums: dict[str, Tensor], elements: Tensor) -> Tensor:
    return torch.cat([value.reshape(-1) for value in (*sums.values(), elements)])


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
