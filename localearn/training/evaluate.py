from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.data import Batch, Data, Split
from localearn.training.generator import give_way

Measure = Callable[[Batch], Tensor]


def measure_of(scores: Callable[..., Tensor], autocast: torch.autocast) -> Measure:
    """Return what takes a batch to (2,): its rows' cross-entropies by (N, C) scores, added up, and its hits."""

    def measure(batch: Batch) -> Tensor:
        with autocast:
            rows = batch.rows(scores(batch.x, *batch.context)).float()
        loss = F.cross_entropy(rows, batch.y, reduction="sum")
        return torch.stack([loss, (rows.argmax(1) == batch.y).sum().to(loss.dtype)])

    return measure


@torch.no_grad()
def evaluate(
    measure: Measure, data: Data, split: Split, batch_size: int, add: Callable[[list[Tensor]], None]
) -> dict[str, float]:
    """Return the mean `loss` and the `accuracy`, 0 to 1, over a split; one host read.

    add: adds up, in place, what several ranks have found, where the data are one's part of the rows.
    """
    totals: Tensor | None = None
    for batch in data.batches(split, batch_size):
        if totals is None:
            totals = torch.zeros(2, device=batch.y.device, dtype=torch.float32)
        if len(batch.y):
            totals = totals + measure(batch)
        give_way()
    assert totals is not None
    add([totals])
    loss, correct = (totals / data.sizes[split]).tolist()
    return {"loss": loss, "accuracy": correct}
