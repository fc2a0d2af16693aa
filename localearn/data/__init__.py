from typing import TYPE_CHECKING

from localearn import registry
from localearn.data.arrays import ArrayData
from localearn.data.base import Batch, Data, Kind, Split
from localearn.data.conversion import as_data, from_arrays, from_dataset, from_graph, from_loader
from localearn.data.generation import generate
from localearn.data.graphs import GraphData
from localearn.data.links import LinkData
from localearn.data.sources import NAMES, load
from localearn.data.streams import LoaderData
from localearn.data.text import TextData
from localearn.data.tokens import Codec, read_codec
from localearn.data.views import ViewData

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.data.coordinates import coordinates as coordinates
    from localearn.data.coordinates import photo as photo
    from localearn.data.interactions import interactions as interactions
    from localearn.data.links import links as links
    from localearn.data.memory import adding as adding
    from localearn.data.memory import copy_memory as copy_memory
    from localearn.data.table import table as table
    from localearn.data.text import text as text
    from localearn.data.views import views as views

# After all imports above, for some of these functions have the name of their module.
globals().update({name: registry.member(__name__, name) for name in registry.DATA})

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
    "as_data",
    "from_arrays",
    "from_dataset",
    "from_graph",
    "from_loader",
    "generate",
    "load",
    "read_codec",
]
__all__ += sorted(registry.DATA)  # pyright: ignore[reportUnsupportedDunderAll]
