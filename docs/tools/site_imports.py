"""Draw docs/figures/imports.svg: which package of localearn calls which, taken from the imports.

    python docs/tools/site_imports.py

writes it, and imports-tall.svg for narrow screens. A box is a package, its height is by its lines. The modules outside
packages are three boxes: those that import no package, those that no package imports, and the others. An arrow is an
import that no way over a third box implies.
"""

import ast
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
LOW, MIDDLE, HIGH = "errors, files, options, ...", "recipes, jobs, ...", "run, compare, tune, ..."
GAP = 46  # between rows of boxes
STYLE = """
.la-imports { max-width: 100%; height: auto; font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.la-imports text { fill: var(--la-text, #263238); font-size: 14px; text-anchor: middle; }
.la-imports text.small { font-size: 11px; }
.la-imports rect { fill: var(--la-block, #d5efec); stroke: var(--la-block-line, #00897b); stroke-width: 1.5; }
.la-imports path { fill: none; stroke: var(--la-block-line, #00897b); stroke-width: 1.2; opacity: 0.7; }
.la-imports .point { fill: var(--la-block-line, #00897b); stroke: none; }
"""

Graph = Mapping[str, set[str]]  # the boxes that each box imports


def imported(path: Path) -> Iterator[str]:
    """Yield the first name below localearn of each of a file's imports, lazy and type-only ones included.

    Args:
        path: a module, whose imports are absolute.

    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("localearn."))
        elif isinstance(node, ast.ImportFrom) and node.module == "localearn":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("localearn."):
            yield str(node.module).split(".")[1]


def boxes(package: Path) -> tuple[Graph, dict[str, tuple[int, int]]]:
    """Return which box imports which, and of each its modules and lines.

    Args:
        package: the folder of localearn.

    """
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        top = path.relative_to(package).parts[0]
        if path.name == "__main__.py":  # runs a command, whose package it may stand below
            top = "__main__"
        if top != "__init__.py":
            files[top.removesuffix(".py")].append(path)
    packages = {name for name in files if (package / name).is_dir()}
    needs = {
        name: {other for path in paths for other in imported(path)} & files.keys() for name, paths in files.items()
    }
    wanted = {other for name in packages for other in _reached(needs, name)}
    box = {
        name: name if name in packages else HIGH if name not in wanted else MIDDLE if uses & packages else LOW
        for name, uses in ((name, _reached(needs, name)) for name in files)
    }
    graph: dict[str, set[str]] = defaultdict(set)
    sizes: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for name, paths in files.items():
        graph[box[name]] |= {box[other] for other in needs[name]} - {box[name]}
        count, lines = sizes[box[name]]
        own = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
        sizes[box[name]] = count + len(paths), lines + own
    return graph, sizes


def _reached(graph: Graph, name: str) -> set[str]:
    seen: set[str] = set()
    left = list(graph[name])
    while left:
        other = left.pop()
        if other not in seen:
            seen.add(other)
            left += graph[other]
    return seen


def levels(graph: Graph) -> dict[str, int]:
    """Return each box's height: 0 where it imports none, else one above the highest that it imports.

    Args:
        graph: one without a circle.

    Raises:
        ValueError: where there is a circle.

    """
    found: dict[str, int] = {}
    while len(found) < len(graph):
        ready = [name for name in graph if name not in found and graph[name] <= found.keys()]
        if not ready:
            raise ValueError(f"a circle of imports among {', '.join(sorted(graph.keys() - found.keys()))}")
        found |= {name: 1 + max((found[other] for other in graph[name]), default=-1) for name in ready}
    return found


def draw(graph: Graph, sizes: Mapping[str, tuple[int, int]], tall: bool = False) -> str:
    """Return the SVG.

    Args:
        graph: which box imports which.
        sizes: each box's modules and lines.
        tall: whether for a narrow screen, with modules and lines below one another.

    """
    width, box, broad, beside = (350, 106, 168, 34) if tall else (760, 158, 206, 70)
    height_of = levels(graph)
    rows = [sorted(n for n in graph if height_of[n] == level) for level in range(max(height_of.values()) + 1)][::-1]
    high = {name: (44 if tall else 30) + 0.45 * math.sqrt(lines) for name, (_, lines) in sizes.items()}
    place: dict[str, tuple[float, float]] = {}
    y = 10.0
    for number, row in enumerate(rows):
        aside = beside * (number % 2 - 0.5) if len(row) == 2 else 0  # so that few arrows run behind boxes
        depth = max(high[name] for name in row)
        for i, name in enumerate(row):
            half = (broad if name in (LOW, MIDDLE, HIGH) else box) / 2 + 4
            x = width * (i + 0.5) / len(row) + aside
            place[name] = min(max(x, half), width - half), y + depth / 2
        y += depth + GAP
    parts = []
    for name, others in sorted(graph.items()):
        direct = {other for other in others if not any(other in _reached(graph, third) for third in others - {other})}
        for other in sorted(direct):
            (x1, y1), (x2, y2) = place[name], place[other]
            y1, y2 = y1 + high[name] / 2, y2 - high[other] / 2
            bend = f"{x1:.1f} {y1 + 30:.1f} {x2:.1f} {y2 - 34:.1f} {x2:.1f} {y2 - 6:.1f}"
            head = f"{x2 - 4:.1f},{y2 - 8:.1f} {x2 + 4:.1f},{y2 - 8:.1f} {x2:.1f},{y2:.1f}"
            parts.append(f'<path d="M{x1:.1f} {y1:.1f} C{bend}"/><polygon class="point" points="{head}"/>')
    for name, (x, middle) in sorted(place.items()):
        count, lines = sizes[name]
        wide = box if name not in (LOW, MIDDLE, HIGH) else broad
        parts.append(
            f'<rect x="{x - wide / 2:.1f}" y="{middle - high[name] / 2:.1f}" width="{wide:g}" '
            f'height="{high[name]:.1f}" rx="7"/>'
        )
        top = middle - (9 if tall else 2)
        parts.append(f'<text x="{x:.1f}" y="{top:.1f}">{escape(name)}</text>')
        words = [f"{count} module{'s' if count > 1 else ''}", f"{lines:,} lines"]
        for line, said in enumerate(words if tall else [", ".join(words)], 1):
            parts.append(f'<text x="{x:.1f}" y="{top + 1 + 15 * line:.1f}" class="small">{said}</text>')
    size = f'viewBox="0 0 {width} {y - GAP + 10:.0f}" width="{width}" height="{y - GAP + 10:.0f}"'
    kinds = f"la-fig la-imports{' la-tall' if tall else ''}"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" class="{kinds}" {size}>'
    title = "<title>Which package of localearn imports which</title>"
    return "\n".join([opening, title, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def main() -> None:
    """Write the figures."""
    found = boxes(ROOT / "localearn")
    for name, tall in (("imports", False), ("imports-tall", True)):
        (FIGURES / f"{name}.svg").write_text(draw(*found, tall), encoding="utf-8")


if __name__ == "__main__":
    main()
