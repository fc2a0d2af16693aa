from collections.abc import Callable

import torch
from torch import Tensor

from localearn.data import Batch, Data, Split
from localearn.tasks import Task
from localearn.training.generator import give_way

Measure = Callable[[Batch], tuple[Tensor, Tensor | None]]


def measure_of(scores: Callable[..., Tensor], autocast: torch.autocast, task: Task) -> Measure:
    """Return what takes a batch to the sums that a task measures by (N, outputs) scores, and the elements, in a row.

    Beside them it gives the outputs themselves, (M, outputs), where the task needs them whole, else None.
    """

    def measure(batch: Batch) -> tuple[Tensor, Tensor | None]:
        with autocast:
            rows = batch.select(scores(batch.x, *batch.context)).float()
        return _in_a_row(*task.measure(rows, batch.target)), rows if task.needs_whole else None

    return measure


@torch.no_grad()
def evaluate(
    measure: Measure,
    task: Task,
    data: Data,
    split: Split,
    batch_size: int,
    add: Callable[[list[Tensor]], None],
    join: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> dict[str, float]:
    """Return the mean `loss` and the task's metrics, by name, over a split; one host read.

    add: adds up, in place, what several ranks have found, where the data are one's part of the rows. join: returns the
    rows of all of them, in any order but the same for outputs and targets.
    """
    nothing: dict[str, Tensor] = {}
    totals: Tensor | None = None
    whole: list[tuple[Tensor, Tensor]] = []  # outputs and targets
    for batch in data.batches(split, batch_size):
        if totals is None:  # of no rows, for a rank may have none: the names, shapes and dtype of the task's sums
            positions = batch.target.shape[1:] if task.per_position else (2,) if task.of_pairs else ()
            positions = (1,) if task.pools_positions else positions
            empty = torch.zeros(0, *positions, task.outputs, device=batch.target.device)
            nothing, elements = task.measure(empty, batch.target[:0])
            totals = _in_a_row(nothing, elements)
            whole = [(empty, batch.target[:0])]
        if len(batch.target):
            sums, output = measure(batch)
            totals = totals + sums
            if output is not None:  # copied, for a replayed graph writes its next batch's there
                whole.append((output.clone(), batch.target))
        give_way()
    assert totals is not None
    add([totals])
    means = (totals[:-1] / totals[-1]).split([value.numel() for value in nothing.values()])
    shaped = {name: mean.view(nothing[name].shape) for name, mean in zip(nothing, means, strict=True)}
    if task.needs_whole:
        figures = task.finish(shaped, *(join(torch.cat(part)) for part in zip(*(whole[1:] or whole), strict=True)))
    else:
        figures = task.finish(shaped)
    return dict(zip(figures, torch.stack(list(figures.values())).tolist(), strict=True))


def _in_a_row(sums: dict[str, Tensor], elements: Tensor) -> Tensor:
    return torch.cat([value.reshape(-1) for value in (*sums.values(), elements)])
