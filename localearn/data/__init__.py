from localearn.data.arrays import ArrayData
from localearn.data.base import Batch, Data, Kind, Split
from localearn.data.conversion import as_data, from_arrays, from_dataset, from_graph, from_loader
from localearn.data.graphs import GraphData
from localearn.data.loading import NAMES, load

__all__ = [
    "NAMES",
    "ArrayData",
    "Batch",
    "Data",
    "GraphData",
    "Kind",
    "Split",
    "as_data",
    "from_arrays",
    "from_dataset",
    "from_graph",
    "from_loader",
    "load",
]
