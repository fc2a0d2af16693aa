from localearn.data.arrays import ArrayData
from localearn.data.base import Batch, Data, Kind, Split
from localearn.data.conversion import as_data, from_arrays, from_dataset, from_graph, from_loader
from localearn.data.coordinates import coordinates, photo
from localearn.data.graphs import GraphData
from localearn.data.interactions import interactions
from localearn.data.loading import NAMES, load
from localearn.data.streams import LoaderData
from localearn.data.table import table

__all__ = [
    "NAMES",
    "ArrayData",
    "Batch",
    "Data",
    "GraphData",
    "Kind",
    "LoaderData",
    "Split",
    "as_data",
    "coordinates",
    "from_arrays",
    "from_dataset",
    "from_graph",
    "from_loader",
    "interactions",
    "load",
    "photo",
    "table",
]
