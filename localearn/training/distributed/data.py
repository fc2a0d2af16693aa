"""Data parallelism (`parallel=data`): every rank has the full net and takes its rows of each batch."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from localearn.data import Data
from localearn.moved import former_names
from localearn.trainers.base import Trainer
from localearn.training.distributed.normalization import sync_batch_norm, uses_sync_batch_norm
from localearn.training.distributed.ranks import ProcessGroupRanks


class DataRanks(ProcessGroupRanks):
    """Ranks that split a batch's rows; one all-reduce of `.grad` gives the gradient of the full batch.

        g = sum_r n_r g_r / sum_r n_r

    g_r is the batch mean over the n_r rows of rank r: so for every rule that fills `.grad` with batch means the step is
    that of one process with the full batch, to rounding. Batch normalisation takes the statistics of all ranks' rows
    (`uses_sync_batch_norm` says which rules cannot). Each rank draws the random numbers of its own rows (dropout, wrong
    labels, noise).

    Args:
        device: This rank's device.
        timeout_s: The timeout of the process group in seconds, for the error message.

    """

    def __init__(self, device: torch.device, timeout_s: float):
        super().__init__(device, timeout_s)
        self._buffer = torch.empty(0)
        self._unsync: Callable[[], None] | None = None

    def setup(self, trainer: Trainer, data: Data) -> Data:
        """Broadcast the rule from rank 0; return the data whose batches are this rank's rows."""
        self.share_rule(trainer)
        return data.part(self.rank, self.size, least=fewest_rows(trainer))

    def share_rule(self, trainer: Trainer) -> None:
        """Broadcast the rule from rank 0, and synchronise its batch normalisation."""
        for tensor in (*trainer.parameters(), *trainer.buffers()):
            self.broadcast(tensor.data, 0)
        if uses_sync_batch_norm(trainer):
            self._unsync = sync_batch_norm(trainer, self)

    def teardown(self, trainer: Trainer) -> None:
        """Restore batch normalisation by the statistics of this rank's rows."""
        if self._unsync:
            self._unsync()
        self._unsync = None

    def reduce_gradients(self, parameters: Sequence[Tensor], rows: int) -> None:
        """All-reduce the gradients, weighted by the rows behind them, in one call; `.grad` then views its buffer.

        Args:
            parameters: The parameters, whose `.grad` is the mean over this rank's rows, or None without rows.
            rows: This rank's rows of the batch, 0 or more.

        """
        size = sum(p.numel() for p in parameters)
        dtype = torch.promote_types(torch.float32, parameters[0].dtype)
        if self._buffer.numel() != size + 1 or self._buffer.dtype != dtype:
            self._buffer = torch.empty(size + 1, dtype=dtype, device=self.device)
        views = self._buffer[:-1].split([p.numel() for p in parameters])
        for p, view in zip(parameters, views, strict=True):
            if p.grad is None:  # this rank has no row of the batch
                view.zero_()
            else:
                torch.mul(p.grad, rows, out=view.view_as(p))
        self._buffer[-1] = rows
        self.all_reduce(self._buffer)
        self._buffer[:-1].div_(self._buffer[-1:])
        for p, view in zip(parameters, views, strict=True):
            p.grad = view.view_as(p).to(p.dtype)

    def means(self, sums: dict[str, Tensor], rows: int) -> tuple[dict[str, float], int]:
        """Return the metrics' means over all ranks' rows, and the number of these rows."""
        own = torch.stack(list(sums.values())).tolist() if sums else []
        found = self.all_gather_object((dict(zip(sums, own, strict=True)), rows))
        names = dict.fromkeys(name for totals, _ in found for name in totals)
        count = sum(seen for _, seen in found)
        return {name: sum(totals.get(name, 0.0) for totals, _ in found) / count for name in names}, count

    def synchronize(self, trainer: Trainer) -> None:
        """Average the floating-point buffers, such as running statistics, over the ranks; weights are equal already."""
        for buffer in trainer.buffers():
            if buffer.is_floating_point():
                self.all_reduce(buffer)
                buffer.div_(self.size)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)


def fewest_rows(trainer: Trainer) -> int:
    """Return the rows of a batch that a rank has at least, unless it has none; see `Data.part`."""
    return 1 if uses_sync_batch_norm(trainer) else 2
