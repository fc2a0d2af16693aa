"""Several processes that train one net, on torch.distributed."""

from localearn.training.parallel.joining import joined
from localearn.training.parallel.normalization import normalises_jointly
from localearn.training.parallel.ranks import Ranks

__all__ = ["Ranks", "joined", "normalises_jointly"]
