"""Imports within localearn run downwards, from room to room as they are listed here, and never in a circle.

Every import statement counts, wherever it stands: in a function, under TYPE_CHECKING, relative or absolute, and
`importlib.import_module` of a literal name.
"""

import ast
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import localearn

# From the bottom to the top. A room may import itself and what stands above it in this list; rooms in one line know
# nothing of each other. A room is a module, or a package with all that is in it.
HOUSE = (
    ("errors",),
    ("moved", "registry"),
    ("allocator", "defaults", "extras", "files", "options", "printing", "trust"),
    ("energy", "inputs", "tasks"),
    ("records",),
    ("data", "nets"),
    ("trainers",),
    ("testing", "training"),
    ("recipes",),
    ("composition",),
    ("jobs",),
    ("grid",),
    ("reporting",),
    ("analysing", "benching", "exporting", "tuning"),
    ("cli",),
    # Shims, for `python -m localearn.run` and the rest; the last is localearn/__init__.py.
    (
        "__main__",
        "analyse",
        "bench",
        "compare",
        "export",
        "lightning",
        "report",
        "run",
        "sample",
        "sklearn",
        "study",
        "tune",
        "",
    ),
)

# Of a package, what stands at the top as the shims of modules do.
SHIMS = ("localearn.energy.check.__main__",)

Graph = Mapping[str, Mapping[str, int]]  # for each module the modules that it imports, and the lines where it does


def modules_of(package: Path) -> dict[str, Path]:
    """Return every module of a package by its dotted name, the package's own first."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(package: Path) -> Graph:
    """Return what each module of a package imports of the package, the packages that are run on the way included."""
    modules = modules_of(package)
    return {name: dict(_edges(name, path, modules)) for name, path in modules.items()}


def _edges(name: str, path: Path, modules: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    around = set(_and_parents(name))  # these are being imported already
    for target, line in _imported(name, path):
        if target.partition(".")[0] != name.partition(".")[0]:
            continue
        module = target if target in modules else target.rpartition(".")[0]
        assert module in modules, f"{path}:{line} imports {target}, which is not there"
        for reached in _and_parents(module):
            if reached == module or reached not in around:
                yield reached, line


def _imported(name: str, path: Path) -> Iterator[tuple[str, int]]:
    """Yield the absolute name of whatever a file imports, `package.name` for a name from a package, with its line."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module"):
            names = [a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from ((literal, node.lineno) for literal in names)


def _and_parents(module: str) -> list[str]:
    return list(itertools.accumulate(module.split("."), "{}.{}".format))


def cycles(graph: Graph) -> list[list[str]]:
    """Return the sets of modules, each sorted, that reach each other by imports."""
    reach = {name: _reached(graph, name) for name in graph}
    found = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]}
    return sorted(sorted(circle) for circle in found)


def _reached(graph: Graph, name: str) -> set[str]:
    seen: set[str] = set()
    left = list(graph[name])
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left += graph[module]
    return seen


def upward(graph: Graph, house: Sequence[Sequence[str]]) -> list[str]:
    """Return, in words, each import of a room that stands beside or above the importer's."""
    level = {room: height for height, rooms in enumerate(house) for room in rooms}
    told = []
    for name, imported in graph.items():
        for target, line in imported.items():
            here, there = _room(name), _room(target)
            if here != there and level[there] >= level[here]:
                told.append(f"{name}:{line} imports {target}")
    return told


def _room(module: str) -> str:
    if module in SHIMS:
        return ""
    return module.split(".")[1] if "." in module else ""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return import_graph(Path(localearn.__file__).parent)


def test_every_room_is_listed_once_and_every_listed_one_is_there(graph: Graph):
    rooms = [room for line in HOUSE for room in line]
    assert sorted(rooms) == sorted({_room(name) for name in graph})


def test_no_import_makes_a_circle(graph: Graph):
    assert cycles(graph) == []


def test_no_import_runs_upward(graph: Graph):
    assert upward(graph, HOUSE) == []


TOY_HOUSE = (("low",), ("left", "right"), ("high", ""))


def toy(folder: Path, **texts: str) -> Graph:
    """Return the graph of a package `toy`; a file's name has `__` where a path has a slash, and `init` is __init__."""
    for name, text in {"init": "", **texts}.items():
        path = folder / "toy" / f"{name.replace('__', '/').replace('init', '__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return import_graph(folder / "toy")


SOUND = {
    "low": "import math\n",
    "left__init": "from toy.left.inner import f\n",
    "left__inner": "from toy import low\n\n\ndef f(): ...\n",
    "left__other": "from .inner import f\nfrom ..low import math\n",
    "right": "import toy.low\n",
    "high": "from toy.left import f\nfrom toy import right\n",
}


def test_a_sound_tree_passes(tmp_path: Path):
    graph = toy(tmp_path, **SOUND)
    assert dict(graph["toy.left.other"]) == {"toy.left.inner": 1, "toy.low": 2}
    assert dict(graph["toy.high"]) == {"toy.left": 1, "toy.right": 2}
    assert cycles(graph) == []
    assert upward(graph, TOY_HOUSE) == []


LAZY = "def f():\n    import toy.right\n"
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from toy.left.inner import f\n"


@pytest.mark.parametrize(
    ("broken", "circle"),
    [
        pytest.param({"low": "import toy.high\n"}, ["toy.high", "toy.left", "toy.left.inner", "toy.low", "toy.right"]),
        pytest.param({"right": "import toy.low\nimport toy.right\n"}, ["toy.right"], id="of itself"),
        pytest.param({"low": LAZY}, ["toy.low", "toy.right"], id="lazy"),
        pytest.param({"low": TYPES}, ["toy.left", "toy.left.inner", "toy.low"], id="type-only"),
        pytest.param({"low": "from . import right\n"}, ["toy.low", "toy.right"], id="relative"),
        pytest.param(
            {"low": "import importlib\nm = importlib.import_module('toy.right')\n"},
            ["toy.low", "toy.right"],
            id="by name",
        ),
        pytest.param(
            {"left__inner": "from toy.left import other\n", "left__other": "from .inner import f\n"},
            ["toy.left.inner", "toy.left.other"],
            id="within a room",
        ),
        pytest.param(
            {"left__leaf": "", "left__inner": "import toy.right\n", "right": "import toy.left.leaf\n"},
            ["toy.left", "toy.left.inner", "toy.right"],
            id="by the package that is run on the way",
        ),
    ],
)
def test_a_circle_is_found(tmp_path: Path, broken: dict[str, str], circle: list[str]):
    assert circle in cycles(toy(tmp_path, **(SOUND | broken)))


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"low": "def f():\n    from toy.high import g\n", "high": ""}, "toy.low:2 imports toy.high"),
        ({"right": TYPES}, "toy.right:3 imports toy.left.inner"),
        (
            {"left__deep__init": "", "left__deep__leaf": "from ...high import f\n"},
            "toy.left.deep.leaf:1 imports toy.high",
        ),
        ({"low": "from toy import VERSION\n"}, "toy.low:1 imports toy"),
    ],
    ids=["lazy", "type-only, beside", "relative, from a package within", "of the package itself"],
)
def test_an_upward_import_is_found(tmp_path: Path, broken: dict[str, str], told: str):
    assert told in upward(toy(tmp_path, **(SOUND | broken)), TOY_HOUSE)


def test_an_import_of_what_is_not_there_is_found(tmp_path: Path):
    with pytest.raises(AssertionError, match=r"low\.py:1 imports toy\.gone\.f, which is not there"):
        toy(tmp_path, low="from toy.gone import f\n")
