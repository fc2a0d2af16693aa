from localearn.data.base import Batch, Data, Kind, Split

__all__ = ["Batch", "Data", "Kind", "Split"]
