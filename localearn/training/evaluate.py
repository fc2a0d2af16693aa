from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from localearn.data import Data, Split


@torch.no_grad()
def evaluate(
    scores: Callable[..., Tensor], data: Data, split: Split, batch_size: int, autocast: torch.autocast
) -> dict[str, float]:
    """Return the mean cross-entropy `loss` and the `accuracy`, 0 to 1, of (N, C) scores over a split; one host read."""
    totals: Tensor | None = None
    for batch in data.batches(split, batch_size):
        with autocast:
            rows = batch.rows(scores(batch.x, *batch.context)).float()
        loss = F.cross_entropy(rows, batch.y, reduction="sum")
        correct = (rows.argmax(1) == batch.y).sum()
        sums = torch.stack([loss, correct.to(loss.dtype)])
        totals = sums if totals is None else totals + sums
    assert totals is not None
    loss, correct = (totals / data.sizes[split]).tolist()
    return {"loss": loss, "accuracy": correct}
