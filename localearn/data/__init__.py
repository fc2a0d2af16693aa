from localearn.data.arrays import ArrayData
from localearn.data.base import Batch, Data, Kind, Split
from localearn.data.conversion import as_data, from_arrays, from_dataset, from_graph, from_loader
from localearn.data.coordinates import coordinates, photo
from localearn.data.generation import generate
from localearn.data.graphs import GraphData
from localearn.data.interactions import interactions
from localearn.data.links import LinkData, links
from localearn.data.memory import adding, copy_memory
from localearn.data.sources import NAMES, load
from localearn.data.streams import LoaderData
from localearn.data.table import table
from localearn.data.text import TextData, text
from localearn.data.tokens import Codec, read_codec
from localearn.data.views import ViewData, views

__all__ = [
    "NAMES",
    "ArrayData",
    "Batch",
    "Codec",
    "Data",
    "GraphData",
    "Kind",
    "LinkData",
    "LoaderData",
    "Split",
    "TextData",
    "ViewData",
    "adding",
    "as_data",
    "coordinates",
    "copy_memory",
    "from_arrays",
    "from_dataset",
    "from_graph",
    "from_loader",
    "generate",
    "interactions",
    "links",
    "load",
    "photo",
    "read_codec",
    "table",
    "text",
    "views",
]
