"""Training of one net by several processes, on torch.distributed: data-parallel, or pipelined by blocks."""

from localearn.training.distributed.launch import joined
from localearn.training.distributed.normalization import normalises_jointly
from localearn.training.distributed.ranks import Ranks

__all__ = ["Ranks", "joined", "normalises_jointly"]
