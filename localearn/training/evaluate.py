from collections.abc import Callable

import torch
from torch import Tensor

from localearn.data import Batch, Data, Split
from localearn.tasks import Task
from localearn.training.generator import give_way

Measure = Callable[[Batch], Tensor]


def measure_of(scores: Callable[..., Tensor], autocast: torch.autocast, task: Task) -> Measure:
    """Return what takes a batch to the sums that a task measures by (N, outputs) scores, and the elements, in a row."""

    def measure(batch: Batch) -> Tensor:
        with autocast:
            rows = batch.select(scores(batch.x, *batch.context)).float()
        return _in_a_row(*task.measure(rows, batch.target))

    return measure


@torch.no_grad()
def evaluate(
    measure: Measure, task: Task, data: Data, split: Split, batch_size: int, add: Callable[[list[Tensor]], None]
) -> dict[str, float]:
    """Return the mean `loss` and the task's metrics, by name, over a split; one host read.

    add: adds up, in place, what several ranks have found, where the data are one's part of the rows.
    """
    nothing: dict[str, Tensor] = {}
    totals: Tensor | None = None
    for batch in data.batches(split, batch_size):
        if totals is None:  # of no rows, for a rank may have none: the names, shapes and dtype of the task's sums
            positions = batch.target.shape[1:] if task.per_position else ()
            empty = torch.zeros(0, *positions, task.outputs, device=batch.target.device)
            nothing, elements = task.measure(empty, batch.target[:0])
            totals = _in_a_row(nothing, elements)
        if len(batch.target):
            totals = totals + measure(batch)
        give_way()
    assert totals is not None
    add([totals])
    means = (totals[:-1] / totals[-1]).split([value.numel() for value in nothing.values()])
    shaped = {name: mean.view(nothing[name].shape) for name, mean in zip(nothing, means, strict=True)}
    figures = task.finish(shaped)
    return dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))


def _in_a_row(sums: dict[str, Tensor], elements: Tensor) -> Tensor:
    return torch.cat([value.reshape(-1) for value in (*sums.values(), elements)])
