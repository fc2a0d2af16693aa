"""The plots of an analysis: sparsity and probes by block, shared ensembles, similarity, angles."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from localearn.analysing.findings import Findings, Similarity
from localearn.moved import former_names
from localearn.reporting import drawing, formatting
from localearn.reporting.document import Figure
from localearn.reporting.drawing import PlotStyle, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 4  # blocks of a run whose ensembles are drawn: the first ones and the last
MOST_NUMBERS = 12  # rows of a matrix in whose cells the numbers are written
_MAP = "viridis"
_LIGHT_FROM = 0.6  # of a cell's value, from where its number is written in black

Styles = dict[str, PlotStyle]


def rule_styles(findings: Sequence[Findings]) -> Styles:
    """Return the style of every run, the same in all plots.

    Args:
        findings: one for each run.

    """
    return drawing.plot_styles((finding.label, finding.algo in ("backprop", "Backprop")) for finding in findings)


def by_block(
    name: str,
    findings: Sequence[Findings],
    styles: Styles,
    values: Callable[[Findings], Sequence[float | None]],
    label: str,
    caption: str,
    first: int = 1,
) -> Figure | None:
    """Draw a value of each block of every run; None where no run has any.

    Args:
        name: the figure's.
        findings: one for each run.
        styles: each run's style.
        values: returns a run's values, block by block.
        label: the y axis's.
        caption: the figure's.
        first: the number of the first value; 0 is the input.

    """
    curves = {
        finding.label: [(first + k, v) for k, v in enumerate(values(finding)) if v is not None] for finding in findings
    }
    curves = {run: curve for run, curve in curves.items() if curve}
    if not curves:
        return None
    figure, axes = drawing.canvas(3.0, [short(run) for run in curves])
    spoken = []
    for run, curve in curves.items():
        style = styles[run]
        axes.plot(
            *zip(*curve, strict=True), color=style.color, marker=style.marker, markeredgecolor=style.edge,
            linestyle=style.dashes, markersize=6, label=short(run),
        )  # fmt: skip
        spoken.append(f"{run} {', '.join(formatting.plain(value, 3) for _, value in curve)}")
    numbers = sorted({number for curve in curves.values() for number, _ in curve})
    axes.set_xticks(numbers, ["input" if number == 0 else str(number) for number in numbers])
    axes.set_xlabel("block")
    axes.set_ylabel(label)
    drawing.legend(figure, axes)
    return drawing.finish(figure, name, caption, f"{label} by block: {'; '.join(spoken)}.")


def shared_figure(number: int, finding: Findings) -> Figure:
    """Draw the overlap of the class ensembles of a run's blocks, a matrix a block.

    Args:
        number: the run's, for the figure's name.
        finding: the run's.

    """
    from matplotlib.figure import Figure as Canvas

    chosen = list(range(len(finding.blocks)))
    if len(chosen) > MOST_PANELS:
        chosen = [*chosen[: MOST_PANELS - 1], chosen[-1]]
    classes = len(finding.class_names)
    columns = min(2, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Canvas(figsize=(drawing.WIDTH_IN, rows * (2.95 if columns > 1 else 4.6)), layout="constrained")
    spoken = []
    mesh: Any = None
    drawn: list[Any] = []
    for panel, k in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, panel + 1)
        block = finding.blocks[k]
        names = [short(name, 8) for name in finding.class_names]
        mesh = _matrix(axes, block.shared, names, names, numbers=classes <= MOST_NUMBERS and columns == 1)
        for unseen in finding.unseen:  # set off, for no training row was of it
            axes.get_yticklabels()[unseen].set_fontweight("bold")
        axes.set_title(f"block {k + 1}")
        drawn.append(axes)
        mean = block.mean_shared(finding.classes)
        spoken.append(f"block {k + 1} {'none' if mean is None else formatting.plain(mean, 2)} on average")
    figure.colorbar(mesh, ax=drawn, shrink=0.7, label="units in both over units in either")
    caption = f"{finding.label}: what the ensembles of any two classes share" + (
        "; classes left out of training stand in bold." if finding.unseen else "."
    )
    alt = f"{finding.label}: overlap of the classes' ensembles, {'; '.join(spoken)}."
    return drawing.finish(figure, drawing.plot_name(f"shared-{number}", finding.label), caption, alt)


def unseen_figure(number: int, finding: Findings, unseen: int) -> Figure:
    """Draw the seen classes with which an unseen one shares its ensemble, block by block.

    Args:
        number: the run's, for the figure's name.
        finding: the run's.
        unseen: the class.

    """
    import torch

    names = [short(finding.class_names[k], 8) for k in finding.classes]
    values = torch.stack([block.shared[unseen, list(finding.classes)] for block in finding.blocks])
    figure, axes = drawing.canvas(0.9 + 0.42 * len(finding.blocks), [])
    mesh = _matrix(
        axes, values, names, [f"block {k + 1}" for k in range(len(finding.blocks))], numbers=len(names) <= MOST_NUMBERS
    )
    axes.set_xlabel("class that was trained on")
    figure.colorbar(mesh, ax=axes, label="shared")
    name = finding.class_names[unseen]
    spoken = "; ".join(
        f"block {k + 1} most with {finding.class_names[best[0][0]]} ({formatting.plain(best[0][1], 2)})"
        for k, block in enumerate(finding.blocks)
        if (best := block.called_up(unseen, finding.classes))
    )
    caption = f"{finding.label}: what the ensemble of class {name}, which it never saw, shares with those that it did."
    alt = f"{finding.label}: overlap of unseen class {name} with the seen ones: {spoken}."
    return drawing.finish(figure, drawing.plot_name(f"unseen-{number}", finding.label, name), caption, alt)


def similarity_figure(number: int, similarity: Similarity) -> Figure:
    """Draw the CKA of all blocks of all runs on the same test rows.

    Args:
        number: for the figure's name.
        similarity: the matrix.

    """
    from matplotlib.figure import Figure as Canvas

    count = len(similarity.blocks)
    side = max(3.2, min(8.0, 1.6 + 0.24 * count))
    figure = Canvas(figsize=(max(drawing.WIDTH_IN, side + 1.6), side + 0.8), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{short(finding.label, 26)} {k + 1}" for finding, k in similarity.blocks]
    mesh = _matrix(axes, similarity.values, [str(k + 1) for _, k in similarity.blocks], names, numbers=count <= 6)
    axes.set_xlabel("block, in the order of the rows")
    for edge in [i for i in range(1, count) if similarity.blocks[i][0] is not similarity.blocks[i - 1][0]]:
        axes.axhline(edge, color="#ffffff", linewidth=1.5)
        axes.axvline(edge, color="#ffffff", linewidth=1.5)
    figure.colorbar(mesh, ax=axes, shrink=0.8, label="linear CKA")
    dataset = similarity.blocks[0][0].dataset
    caption = f"Linear CKA between all blocks of the runs on {dataset}, over the same test rows; white lines part runs."
    off = [similarity.values[i, j].item() for i in range(count) for j in range(i)]
    known = [value for value in off if not math.isnan(value)]
    ends = f"{formatting.plain(min(known), 2)} to {formatting.plain(max(known), 2)}" if known else "nothing to compare"
    alt = f"Linear CKA between {count} blocks on {dataset}: {ends} off the diagonal."
    return drawing.finish(figure, drawing.plot_name(f"cka-{number}", dataset), caption, alt)


def angles_figure(number: int, finding: Findings) -> Figure | None:
    """Draw a run's angles to the true gradient, and of its paths to its weights, over passes; None without any.

    Args:
        number: the run's, for the figure's name.
        finding: the run's.

    """
    angles = finding.angles()
    if not angles:
        return None
    styles = drawing.plot_styles((_angle_label(name), False) for name in angles)
    figure, axes = drawing.canvas(3.0, list(styles))
    for name, curve in angles.items():
        style = styles[_angle_label(name)]
        axes.plot(
            *zip(*curve, strict=True), color=style.color, marker=style.marker, markeredgecolor=style.edge,
            linestyle=style.dashes, markersize=5, markevery=max(1, len(curve) // 8), label=_angle_label(name),
        )  # fmt: skip
    axes.axhline(90, color=drawing.INK, linewidth=1)
    axes.set_ylim(0, max(95.0, *(angle for curve in angles.values() for _, angle in curve)))
    axes.set_xlabel("passes")
    axes.set_ylabel("angle (degrees)")
    drawing.legend(figure, axes)
    caption = (
        f"{finding.label}: angles over training; at 0 an update is backprop's, or a path back its weight, at 90 it "
        "says nothing of it."
    )
    spoken = "; ".join(
        f"{_angle_label(name)} from {curve[0][1]:.0f} to {curve[-1][1]:.0f}" for name, curve in angles.items()
    )
    return drawing.finish(
        figure, drawing.plot_name(f"angles-{number}", finding.label), caption, f"Angles in degrees: {spoken}."
    )


def _angle_label(name: str) -> str:
    if name.startswith("path_angle_"):
        return f"path of {name.removeprefix('path_angle_')}"
    part = name.removeprefix("angle_")
    return f"update of block {part}" if part.isdigit() else f"update of the {part}"


def _matrix(axes: "Axes", values: Tensor, columns: Sequence[str], rows: Sequence[str], *, numbers: bool) -> Any:
    """Draw a matrix of values from 0 to 1, first row on top; cells without a value stay empty."""
    from matplotlib.colors import Normalize

    array = values.numpy()
    mesh = axes.pcolormesh(array, cmap=_MAP, norm=Normalize(0, 1), edgecolors="none")
    axes.invert_yaxis()
    size = 8.0 if max(len(columns), len(rows)) > 12 else 9.0
    axes.set_xticks([k + 0.5 for k in range(len(columns))], columns, fontsize=size)
    axes.set_yticks([k + 0.5 for k in range(len(rows))], rows, fontsize=size)
    if max(map(len, columns)) > 2:
        axes.tick_params(axis="x", labelrotation=60)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for i, row in enumerate(array.tolist() if numbers else ()):
        for j, value in enumerate(row):
            if not math.isnan(value):
                ink = "#000000" if value >= _LIGHT_FROM else "#ffffff"
                axes.text(j + 0.5, i + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
    return mesh


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
