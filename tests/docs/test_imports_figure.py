"""The figure of docs/architecture.md: drawn from the imports of the tree as it is."""

from pathlib import Path

import pytest
import site_imports

import localearn

PACKAGE = Path(localearn.__file__).parent


def test_every_package_is_a_box_above_what_it_imports():
    graph, sizes = site_imports.boxes(PACKAGE)
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= graph.keys()
    level = site_imports.levels(graph)
    assert all(level[name] > level[other] for name, others in graph.items() for other in others)
    assert sum(count for count, _ in sizes.values()) == len(list(PACKAGE.rglob("*.py"))) - 1
    for tall in (False, True):
        svg = site_imports.draw(graph, sizes, tall)
        assert all(f">{name}</text>" in svg for name in packages)
        assert svg.startswith(f'<svg xmlns="http://www.w3.org/2000/svg" class="la-fig la-imports{" la-tall" * tall}"')


def test_an_import_that_others_imply_is_not_drawn():
    graph = {"top": {"middle", "low"}, "middle": {"low"}, "low": set()}
    svg = site_imports.draw(graph, dict.fromkeys(graph, (1, 100)))
    assert svg.count("<path") == 2


def test_a_circle_is_refused():
    with pytest.raises(ValueError, match="a circle of imports among a, b"):
        site_imports.levels({"a": {"b"}, "b": {"a"}, "c": set()})
