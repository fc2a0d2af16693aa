from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.data import Data, Split


@torch.no_grad()
def evaluate(
    scores: Callable[..., Tensor],
    data: Data,
    split: Split,
    batch_size: int,
    autocast: torch.autocast,
    add: Callable[[list[Tensor]], None],
) -> dict[str, float]:
    """Return the mean cross-entropy `loss` and the `accuracy`, 0 to 1, of (N, C) scores over a split; one host read.

    add: adds up, in place, what several ranks have found, where the data are one's part of the rows.
    """
    totals: Tensor | None = None
    for batch in data.batches(split, batch_size):
        if totals is None:
            totals = torch.zeros(2, device=batch.y.device, dtype=torch.float32)
        if not len(batch.y):
            continue
        with autocast:
            rows = batch.rows(scores(batch.x, *batch.context)).float()
        loss = F.cross_entropy(rows, batch.y, reduction="sum")
        correct = (rows.argmax(1) == batch.y).sum()
        totals = totals + torch.stack([loss, correct.to(loss.dtype)])
    assert totals is not None
    add([totals])
    loss, correct = (totals / data.sizes[split]).tolist()
    return {"loss": loss, "accuracy": correct}
