"""Drawing that all plots of a report share: a rule's style, an axis's ticks, and the two forms of a plot."""

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localearn.moved import former_names
from localearn.reporting.document import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Okabe and Ito's palette, which colour-blind readers distinguish. Black is the baseline's; a violet replaces their
# yellow, which white paper swallows; the two that are pale on white come last, and their marks have an edge of ink.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7744DD", "#E69F00", "#56B4E9")
PALE = ("#E69F00", "#56B4E9")
MARKERS = ("s", "^", "D", "v", "P", "X", "p", "h")
DASHES = ("-", "--", ":")
INK = "#1b1b1b"  # replaced by the page's own text colour in an inline SVG, light or dark
WIDTH_IN = 5.6
CREATOR = "localearn report"  # in every PNG's and SVG's metadata; `write_study` knows its plots by it
_LABEL = 34  # characters of a label next to a y axis, at most, that the lowest of the plots has room for
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "svg.fonttype": "path",
    "svg.hashsalt": "localearn",
}


@dataclass(frozen=True, slots=True)
class PlotStyle:
    """The style of a rule, the same in every plot of a report.

    Attributes:
        color: of its lines and marks.
        marker: matplotlib's.
        dashes: matplotlib's line style.

    """

    color: str
    marker: str
    dashes: str

    @property
    def edge(self) -> str:
        """The colour of its marks' edges."""
        return INK if self.color in PALE else self.color


def plot_styles(labels: Iterable[tuple[str, bool]]) -> dict[str, PlotStyle]:
    """Return a style per rule: baselines in ink and grey, rules in colours.

    Args:
        labels: each rule's label, and whether it is a baseline.

    """
    styles: dict[str, PlotStyle] = {}
    for label, baseline in sorted(set(labels), key=lambda item: (not item[1], item[0])):
        count = sum((style.color in PALETTE) != baseline for style in styles.values())
        if baseline:
            styles[label] = PlotStyle(INK if count == 0 else "#808080", "o", DASHES[count % len(DASHES)])
        else:
            color, turn = PALETTE[count % len(PALETTE)], count // len(PALETTE)
            styles[label] = PlotStyle(color, MARKERS[count % len(MARKERS)], DASHES[turn % len(DASHES)])
    return styles


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style, and leave that of the user's own plots as it was."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def canvas(height_in: float, entries: Sequence[str]) -> tuple["Canvas", "Axes"]:
    """Return a figure with one set of axes, high enough for a legend above it.

    Args:
        height_in: of the figure without its legend, in inches.
        entries: the legend's.

    """
    from matplotlib.figure import Figure as Canvas

    rows = -(-len(entries) // legend_columns(entries)) if entries else 0
    figure = Canvas(figsize=(WIDTH_IN, height_in + 0.22 * rows), layout="constrained")
    return figure, figure.add_subplot()


def entry(axes: "Axes", label: str, style: PlotStyle) -> None:
    """Add a rule's mark to the legend, without the bars of its interval.

    Args:
        axes: the plot's.
        label: the rule's.
        style: the rule's.

    """
    axes.plot(
        [], [], color=style.color, marker=style.marker, markeredgecolor=style.edge, linestyle="none", markersize=7,
        label=short(label),
    )  # fmt: skip


def legend(figure: "Canvas", axes: "Axes") -> None:
    """Put the legend above the axes, in as many columns as fit.

    Args:
        figure: the plot.
        axes: the plot's.

    """
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=legend_columns(labels), borderaxespad=0.1)


def label_y(axes: "Axes", text: str) -> None:
    """Write the label of the y axis, its bracketed part on a second line where one line would not fit.

    Args:
        axes: the plot's.
        text: the label.

    """
    axes.set_ylabel(text.replace(" (", "\n(", 1) if len(text) > _LABEL else text)


def legend_columns(entries: Sequence[str]) -> int:
    """Return how many columns of the longest entry fit into a figure's width.

    Args:
        entries: the legend's.

    """
    return max(1, min(len(entries), int(58 // (max(map(len, entries), default=0) + 7))))


def plot_name(*parts: str | None) -> str:
    """Return a file's name for a plot, of letters that every file system takes.

    Args:
        parts: of the name; None is left out.

    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", "-".join(part for part in parts if part))


def short(name: str, length: int = 34) -> str:
    """Return a name for a plot: its middle left out where it is long, and no sign in it that begins a formula.

    Args:
        name: the whole name.
        length: the most characters.

    """
    if len(name) > length:
        name = f"{name[: length // 2 - 1]}…{name[-(length // 2) :]}"
    return name.replace("$", r"\$")


def logarithmic(axes: "Axes", span: float) -> None:
    """Make the x axis logarithmic, with plain numbers.

    Args:
        axes: the plot's.
        span: most over least; the larger, the fewer numbers per decade.

    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log", nonpositive="clip")
    choices = ((3, (1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)), (12, (1, 1.5, 2, 3, 4, 5, 6, 8)), (300, (1, 2, 5)))
    subdivisions = next((chosen for limit, chosen in choices if span < limit), (1,))
    axes.xaxis.set_major_locator(LogLocator(subs=subdivisions))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def finish(figure: "Canvas", name: str, caption: str, alt: str) -> Figure:
    """Return the plot as PNG, on white, and as an SVG that takes its ink from the page.

    Args:
        figure: the plot.
        name: of its file.
        caption: below the plot.
        alt: its content as text.

    """
    png, svg = io.BytesIO(), io.StringIO()
    with warnings.catch_warnings():
        # A rule's name may be written in letters that the font lacks; boxes replace them, and the table has the name.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        figure.draw_without_rendering()
        _fix_ticks(figure)
        figure.savefig(png, format="png", dpi=160, facecolor="white", metadata={"Software": CREATOR})
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": CREATOR})
    return Figure(name, caption, alt, png.getvalue(), _inline(svg.getvalue(), name))


def _fix_ticks(figure: "Canvas") -> None:
    """Fix the y ticks: left free, they may change with the layout, and wider labels be cut off."""
    from matplotlib.ticker import FixedLocator

    for axes in figure.axes:
        if isinstance(axes.yaxis.get_major_locator(), FixedLocator):
            continue  # rules' names
        low, high = sorted(axes.get_ylim())
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])


def _inline(svg: str, name: str) -> str:
    """Return an SVG to embed in a page: no prologue or comments, its own ids, the page's ink, no fixed size."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<style type="text/css">.*?</style>', "", body, count=1, flags=re.DOTALL)  # it would reach the page
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r' (?:width|height)="[\d.]+pt"', "", body, count=2)
    body = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", body, count=2)
    body = body.replace("<svg ", '<svg style="stroke-linejoin: round; stroke-linecap: butt" ', 1)
    return re.sub(r"\n\s*", "\n", body.replace(INK, "currentColor")).strip()


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
