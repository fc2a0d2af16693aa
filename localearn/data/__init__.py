from localearn.data.arrays import ArrayData
from localearn.data.base import Batch, Data, Kind, Split
from localearn.data.graphs import GraphData
from localearn.data.loading import NAMES, load

__all__ = ["NAMES", "ArrayData", "Batch", "Data", "GraphData", "Kind", "Split", "load"]
