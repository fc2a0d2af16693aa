"""Training of one net by several processes, on torch.distributed: data-parallel, or pipelined by blocks."""

from typing import TYPE_CHECKING

from localearn.moved import former_names
from localearn.training.distributed.launch import join_process_group
from localearn.training.distributed.normalization import uses_sync_batch_norm
from localearn.training.distributed.ranks import Ranks

__all__ = ["Ranks", "join_process_group", "uses_sync_batch_norm"]


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
