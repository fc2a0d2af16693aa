"""Draw docs/figures/*.svg: for each rule what flows where, and the home page's picture.

    python docs/tools/site_figures.py

writes them again. A figure is a function of `FIGURES` that draws what there is next to the chain of blocks; in the
site they are part of the page and take its colours, light or dark. Each has a second file, `-tall`, for narrow
screens. Solid arrows are activations, dashed ones are what teaches; purple is fixed and random, orange is learned or
exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path as File
from textwrap import wrap

FOLDER = File(__file__).resolve().parents[1] / "figures"
WIDTH, NARROW = 760, 300  # of a figure, and at least of one for a narrow screen
NOTE = 38  # of a drawing, what its caption takes of its height
X, READOUT, LOSS = 50, 600, 705  # the middles of the input, the readout and the loss
BLOCKS = (180, 320, 460)
ROW = 70  # the middle of the chain of blocks
SUBSCRIPT = "₀₁₂₃"
STYLE = """
.la-fig { max-width: 100%; height: auto; font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.la-fig .back { fill: var(--la-back, #ffffff); }
.la-fig text { fill: var(--la-text, #263238); font-size: 15px; text-anchor: middle; dominant-baseline: central; }
.la-fig text.small { font-size: 13px; }
.la-fig text.left { text-anchor: start; }
.la-fig text.title { font-size: 17px; font-weight: 600; }
.la-fig rect.block { fill: var(--la-block, #d5efec); stroke: var(--la-block-line, #00897b); stroke-width: 1.5; }
.la-fig rect.head { fill: var(--la-head, #ffe9d6); stroke: var(--la-teach, #d35400); stroke-width: 1.5; }
.la-fig rect.fixed { fill: var(--la-fixed-fill, #ece4f7); stroke: var(--la-fixed, #7e57c2); stroke-width: 1.5; }
.la-fig rect.opaque { fill: var(--la-opaque, #546e7a); stroke: none; }
.la-fig text.on-opaque { fill: #ffffff; }
.la-fig path { fill: none; stroke-width: 2; }
.la-fig path.forward { stroke: var(--la-block-line, #00897b); }
.la-fig path.teach { stroke: var(--la-teach, #d35400); stroke-dasharray: 6 4; }
.la-fig path.fixed { stroke: var(--la-fixed, #7e57c2); stroke-dasharray: 6 4; }
.la-fig path.cut { stroke: var(--la-text, #263238); }
.la-fig .point-forward { fill: var(--la-block-line, #00897b); }
.la-fig .point-teach { fill: var(--la-teach, #d35400); }
.la-fig .point-fixed { fill: var(--la-fixed, #7e57c2); }
"""


Point = tuple[float, float]


@dataclass(frozen=True)
class Text:
    """A line of text around a place; `kind` is its class, "aside" among its words where it labels a line above it."""

    at: Point
    text: str
    kind: str = ""

    def size(self) -> Point:
        """Return its width and height, about."""
        per_letter, height = (7.0, 15.0) if "small" in self.kind else (8.5, 18.0)
        return per_letter * len(self.text), height


@dataclass(frozen=True)
class Box:
    """A box with a label in its middle."""

    at: Point
    label: str
    kind: str
    size: Point


@dataclass(frozen=True)
class Path:
    """A line through points, or a bent one of three; with an arrow's point where `point`."""

    points: tuple[Point, ...]
    kind: str
    point: bool = True
    bent: bool = False


@dataclass
class Drawing:
    """What a figure shows, its chain of blocks from left to right; sizes are in pixels, places are middles."""

    height: int
    shapes: list[Text | Box | Path] = field(default_factory=list)
    caption: str = ""

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Write a line."""
        self.shapes.append(Text((x, y), text, kind))

    def box(self, x: float, y: float, label: str, kind: str = "block", size: Point = (84, 44)) -> None:
        """Draw a box with a label."""
        self.shapes.append(Box((x, y), label, kind, size))

    def line(self, points: Sequence[Point], kind: str = "forward", point: bool = True) -> None:
        """Draw an arrow through points."""
        self.shapes.append(Path(tuple(points), kind, point))

    def cut(self, x: float, y: float) -> None:
        """Mark an arrow as one that no gradient passes."""
        for shift in (-3, 3):
            self.line([(x + shift - 3, y + 8), (x + shift + 3, y - 8)], "cut", point=False)


class Wide:
    """Places as they were drawn: the chain runs from left to right."""

    def __init__(self, drawing: Drawing):
        """Take the size of the drawing."""
        self.width, self.height = WIDTH, drawing.height - (NOTE if drawing.caption else 0)

    def place(self, at: Point) -> Point:
        """Return a place of the figure."""
        return at

    def aside(self, text: Text) -> tuple[Point, str]:
        """Return where a line's label is, and its class."""
        return text.at, text.kind.replace("aside", "").strip()


class Tall:
    """The drawing for a narrow screen: the chain runs from top to bottom, texts and boxes stay upright.

    A place's x becomes its height and its y its distance from the left. Both are stretched where a box is, so that it
    has room for its label, and heights are shrunk between boxes.
    """

    def __init__(self, drawing: Drawing):
        """Stretch the drawing's axes."""
        solid = [(shape.at, shape.size, shape.size) for shape in drawing.shapes if isinstance(shape, Box)]
        texts = [shape for shape in drawing.shapes if isinstance(shape, Text)]
        lines = [(text.at, (text.size()[1], text.size()[1]), text.size()) for text in texts if "aside" not in text.kind]
        self._down = Axis([(x, w, h) for (x, _), (w, _), (_, h) in solid], WIDTH, 0.7)
        self._right = Axis([(y, h, w) for (_, y), (_, h), (w, _) in [*solid, *lines]], drawing.height, 1.0)
        ends = [self.place(at)[0] for shape in drawing.shapes for at in _points(shape)]
        asides = [self.aside(text)[0][0] + text.size()[0] for text in texts if "aside" in text.kind]
        edges = [self.place(text.at)[0] + text.size()[0] / 2 for text in texts if "aside" not in text.kind]
        self.width = math.ceil(max([*ends, *asides, *edges]) + 8)
        self.height = math.ceil(max(self.place(at)[1] for shape in drawing.shapes for at in _points(shape)) + 24)

    def place(self, at: Point) -> Point:
        """Return a place of the figure."""
        return self._right.at(at[1]), self._down.at(at[0])

    def aside(self, text: Text) -> tuple[Point, str]:
        """Return where a line's label is, right of it, and its class."""
        x, y = self.place((text.at[0], text.at[1] - 10))
        return (x, y), text.kind.replace("aside", "left")


class Axis:
    """A map of one coordinate that stretches what lies inside spans."""

    def __init__(self, spans: Sequence[tuple[float, float, float]], length: float, between: float):
        """Take spans as (middle, length, length wanted), and how much is left of what lies between them."""
        edges = {0.0, float(length)}
        for middle, size, _ in spans:
            edges |= {middle - size / 2, middle + size / 2}
        self.edges = sorted(edges)
        self.ends = [0.0]
        for low, high in pairwise(self.edges):
            inside = [want / size for middle, size, want in spans if abs((low + high) / 2 - middle) < size / 2]
            self.ends.append(self.ends[-1] + (high - low) * max(inside, default=between))

    def at(self, value: float) -> float:
        """Return where a coordinate comes to lie."""
        for (low, high), (start, end) in zip(pairwise(self.edges), pairwise(self.ends), strict=True):
            if value <= high:
                return start + (end - start) * (value - low) / (high - low)
        return self.ends[-1]


def _points(shape: Text | Box | Path) -> list[Point]:
    if isinstance(shape, Path):
        return list(shape.points)
    if isinstance(shape, Text):
        return [shape.at]
    (x, y), (w, h) = shape.at, shape.size
    return [(x - w / 2, y - h / 2), (x + w / 2, y + h / 2)]


def render(drawing: Drawing, tall: bool) -> tuple[list[str], float, float]:
    """Return a drawing's elements, its width and its height, without its caption.

    Args:
        drawing: What is drawn.
        tall: Whether for a narrow screen.

    """
    layout = Tall(drawing) if tall else Wide(drawing)
    prefix = "la-tall" if tall else "la"
    parts = []
    for shape in drawing.shapes:
        if isinstance(shape, Text):
            at, kind = layout.aside(shape) if "aside" in shape.kind else (layout.place(shape.at), shape.kind)
            parts.append(_text(at, shape.text, kind))
        elif isinstance(shape, Box):
            (x0, y0), (x1, y1) = (layout.place(at) for at in _points(shape))
            parts.append(
                f'<rect x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}" rx="7" class="{shape.kind}"/>'
            )
            kind = "on-opaque" if shape.kind == "opaque" else "small" if len(shape.label) > 9 else ""
            parts.append(_text(((x0 + x1) / 2, (y0 + y1) / 2), shape.label, kind))
        else:
            path = "M" + " L".join(f"{x:g} {y:g}" for x, y in map(layout.place, shape.points))
            marker = f' marker-end="url(#{prefix}-{shape.kind})"' if shape.point else ""
            parts.append(f'<path d="{path}" class="{shape.kind}"{marker}/>')
    return parts, layout.width, layout.height


def _text(at: Point, text: str, kind: str) -> str:
    return f'<text x="{at[0]:g}" y="{at[1]:g}" class="{kind}">{escape(text)}</text>'


def assemble(panels: Sequence[tuple[str, Drawing]], caption: str, tall: bool) -> str:
    """Return an SVG of drawings below one another.

    Args:
        panels: Each with its title, "" for none.
        caption: What a reader who does not see the figure is told.
        tall: Whether for a narrow screen.

    """
    rendered = [(title, drawing, *render(drawing, tall)) for title, drawing in panels]
    width = max([NARROW if tall else WIDTH, *(wide for *_, wide, _ in rendered)])
    body: list[str] = []
    y = 0.0
    for title, drawing, parts, _, height in rendered:
        for line in wrap(title, width * 2 // 21) if title else []:
            body.append(_text((8, y + 16), line, "title left"))
            y += 24
        body += [f'<g transform="translate(0 {y:g})">', *parts, "</g>"]
        y += height
        for line in wrap(drawing.caption, width // 7) if drawing.caption else []:
            body.append(_text((width / 2, y + 8), line, "small"))
            y += 19
        y += 12
    prefix = "la-tall" if tall else "la"
    points = "".join(
        f'<marker id="{prefix}-{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0 L10 5 L0 10 z" class="point-{kind}" '
        'style="stroke:none;stroke-dasharray:none"/></marker>'  # markers' shapes have no dashes of their own
        for kind in ("forward", "teach", "fixed")
    )
    inner = "\n".join(body)
    return (
        f'<svg class="la-fig{" la-tall" if tall else ""}" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {width:g} {y:g}" width="{width:g}" height="{y:g}"><title>{escape(caption)}</title>'
        f'<style>{STYLE}</style><defs>{points}</defs><rect class="back" width="{width:g}" height="{y:g}"/>\n'
        f"{inner}\n</svg>\n"
    )


def sub(letter: str, k: int) -> str:
    """Return a letter with its index."""
    return letter + SUBSCRIPT[k]


def chain(
    d: Drawing,
    y: float = ROW,
    *,
    cut: bool = False,
    first: str = "x",
    end: str = "loss",
    label: str = "block {k}",
    readout: bool = True,
) -> None:
    """Draw the forward pass.

    Args:
        d: where.
        y: the middle of its blocks.
        cut: whether each block's input is a constant to it.
        first: the input.
        end: what the readout's output is for; none where it is empty.
        label: of a block.
        readout: whether the net's readout is used.

    """
    d.text(X, y, first)
    places = [X + 14 + 4 * len(first), *BLOCKS, *([READOUT] if readout else [])]
    for k, x in enumerate(BLOCKS, 1):
        d.box(x, y, label.format(k=k))
    for k, (left, right) in enumerate(pairwise(places)):
        start = left if k == 0 else left + 42
        d.line([(start, y), (right - 44, y)])
        if k:
            d.text((start + right - 44) / 2, y - 16, sub("h", k), "small")
        if cut and k:
            d.cut((start + right - 50) / 2, y)
    if readout:
        d.box(READOUT, y, "readout")
    if readout and end:
        d.line([(READOUT + 42, y), (LOSS - max(22, 5 * len(end) + 2), y)])
        d.text(LOSS, y, end)


def heads(d: Drawing, head: str, loss: str = "loss{k}", y: float = ROW) -> None:
    """Draw a loss of each block's own below it, and the way by which it teaches the block."""
    for k, x in enumerate(BLOCKS, 1):
        d.line([(x - 16, y + 22), (x - 16, y + 58)])
        d.box(x - 10, y + 80, head.format(k=SUBSCRIPT[k]), "head", (64, 36))
        d.line([(x - 16, y + 98), (x - 16, y + 124)])
        d.text(x - 10, y + 138, loss.format(k=SUBSCRIPT[k]), "small")
        d.line([(x + 34, y + 128), (x + 34, y + 24)], "teach")


def backward(d: Drawing, label: str, kind: str = "teach", y: float = ROW) -> None:
    """Draw the error's way back through all blocks, one after another."""
    low = y + 52
    d.line([(LOSS, y + 14), (LOSS, low), (READOUT + 2, low), (READOUT + 2, y + 24)], "teach")
    places = [*BLOCKS, READOUT]
    for k in range(3, 0, -1):
        right, left = places[k] - 14, places[k - 1] + 14
        d.line([(right, y + 22), (right, low), (left, low), (left, y + 24)], kind)
        d.text((left + right) / 2, low + 16, label.format(k=SUBSCRIPT[k] if k < 3 else "ₒ"), "small aside")


def note(d: Drawing, text: str) -> None:
    """Write what is to be seen below the figure."""
    d.caption = text


def backprop() -> Drawing:
    """Draw backpropagation."""
    d = Drawing(188)
    chain(d)
    backward(d, "Wᵀ")
    note(d, "the error passes back through every later block, by the transposes of their weights")
    return d


def shallow() -> Drawing:
    """Draw the readout alone that learns."""
    d = Drawing(188)
    chain(d, cut=True, label="random {k}")
    d.line([(LOSS, ROW + 14), (LOSS, ROW + 52), (READOUT + 2, ROW + 52), (READOUT + 2, ROW + 24)], "teach")
    note(d, "blocks keep their random initialisation; only the readout follows its gradient")
    return d


def local(head: str, text: str, loss: str = "loss{k}", readout: bool = True) -> Drawing:
    """Draw a local rule: a head and a loss for each block, nothing between blocks."""
    d = Drawing(260)
    chain(d, cut=True, readout=readout)
    heads(d, head, loss)
    note(d, text)
    return d


def mono_forward() -> Drawing:
    """Draw Mono-Forward."""
    return local("M{k}", "each block and its projection M learn by a cross-entropy of their own; M₃ is the readout")


def local_loss() -> Drawing:
    """Draw local losses."""
    return local(
        "head", "a head classifies, and rows with similar labels become similar: (1 − β) pred + β sim", "pred + sim"
    )


def scalable_forward_forward() -> Drawing:
    """Draw scalable Forward-Forward."""
    return local(
        "conv{k}²", "mean square of each class's maps = that class's goodness; softmax over classes", readout=False
    )


def forward_forward() -> Drawing:
    """Draw Forward-Forward."""
    d = Drawing(280)
    chain(d, cut=True, first="x⁺ , x⁻")
    heads(d, "Σ h²", "x⁺ ↑  x⁻ ↓")
    note(d, "x⁺ carries the true label, x⁻ a wrong one: goodness Σh² learns to be high for x⁺ and low for x⁻")
    return d


def forward_gnn() -> Drawing:
    """Draw ForwardGNN."""
    d = Drawing(290)
    chain(d, cut=True, first="nodes", label="GNN {k}", readout=False)
    heads(d, "h · v", "CE(y)")
    d.box(X, ROW + 80, "v: classes", "fixed", (92, 36))
    d.line([(X, ROW + 60), (X, ROW + 16)], "fixed")
    note(d, "one virtual node per class joins the graph; a node's class is that of the most similar virtual node v")
    return d


def cafo() -> Drawing:
    """Draw Cascaded Forward."""
    d = Drawing(270)
    chain(d, cut=True, label="random {k}", readout=False)
    for k, x in enumerate(BLOCKS, 1):
        d.line([(x, ROW + 22), (x, ROW + 62)])
        d.box(x, ROW + 80, f"W{SUBSCRIPT[k]}", "head", (84, 36))
        d.line(
            [(x, ROW + 98), (x, ROW + 136), (READOUT - 50, ROW + 136)] if k == 3 else [(x, ROW + 98), (x, ROW + 136)]
        )
    d.line([(BLOCKS[0], ROW + 136), (BLOCKS[2], ROW + 136)], "forward", point=False)
    d.box(READOUT, ROW + 136, "Σ softmax", "block", (96, 36))
    note(
        d,
        "blocks keep their random initialisation; each linear predictor is solved for alone; probabilities are summed",
    )
    return d


def noprop() -> Drawing:
    """Draw NoProp."""
    d = Drawing(280)
    for k, x in enumerate((*BLOCKS, READOUT), 1):
        d.box(x, 120, f"block {k}" if k < 4 else "block T")
        d.text(x - 18, 40, f"z{SUBSCRIPT[k - 1] if k < 4 else 'ₜ₋₁'}", "small")
        d.line([(x - 18, 52), (x - 18, 96)])
        d.line([(x + 20, 52), (x + 20, 96)])
        d.text(x + 20, 40, "x", "small")
        d.line([(x - 16, 142), (x - 16, 186)])
        d.text(x, 202, "|û − u|²", "small")
        d.line([(x + 20, 190), (x + 20, 144)], "teach")
    d.box(X + 5, 40, "u + noise", "fixed", (84, 36))
    d.line([(X + 50, 40), (BLOCKS[0] - 36, 40)], "fixed")
    d.text((BLOCKS[2] + READOUT) / 2, 120, "…")
    note(
        d,
        "each block gets a noisy embedding of the label, and x, and predicts the embedding without the other blocks",
    )
    return d


def model_free() -> Drawing:
    """Draw model-free Forward-Forward."""
    d = Drawing(230)
    d.text(X, ROW, "x⁺ , x⁻")
    previous = X + 30
    for k, x in enumerate((190, 390, 590), 1):
        d.line([(previous, ROW), (x - 44, ROW)])
        d.box(x, ROW, f"P{SUBSCRIPT[k]}", "opaque", (84, 44))
        d.line([(x + 42, ROW), (x + 62, ROW)])
        d.box(x + 84, ROW, f"W{SUBSCRIPT[k]}", "block", (42, 44))
        d.line([(x + 76, ROW + 22), (x + 76, ROW + 84)])
        d.text(x + 84, ROW + 100, f"loss{SUBSCRIPT[k]}", "small")
        d.line([(x + 94, ROW + 88), (x + 94, ROW + 24)], "teach")
        d.text(x, ROW + 40, "optics, circuit …", "small aside")
        previous = x + 105
    note(d, "P is never differentiated; the linear map W after it learns from the system's outputs")
    return d


def direct_feedback_alignment() -> Drawing:
    """Draw direct feedback alignment."""
    d = Drawing(250)
    chain(d, cut=True, end="e")
    for k, x in zip((3, 2, 1), reversed(BLOCKS), strict=True):
        low = ROW + 40 + 34 * (4 - k)
        d.line([(LOSS - 8 + 4 * k, ROW + 14), (LOSS - 8 + 4 * k, low), (x, low), (x, ROW + 24)], "fixed")
        d.text(x + 50, low - 12, f"e B{SUBSCRIPT[k]}", "small")
    note(d, "fixed random matrices B project the output error to every block at once")
    return d


def feedback_alignment() -> Drawing:
    """Draw feedback alignment."""
    d = Drawing(188)
    chain(d)
    backward(d, "B", "fixed")
    note(d, "as backprop, with fixed random matrices B in place of the transposed weights")
    return d


def sign_symmetry() -> Drawing:
    """Draw sign symmetry."""
    d = Drawing(188)
    chain(d)
    backward(d, "|B| ∘ sign W", "fixed")
    note(d, "the backward pass uses the signs of the weights, with other magnitudes")
    return d


def product_feedback_alignment() -> Drawing:
    """Draw product feedback alignment."""
    d = Drawing(188)
    chain(d)
    backward(d, "B R", "teach")
    note(d, "a fixed random B and a plastic R, which learns by the same Hebbian product as W: B R tends to W")
    return d


def pepita() -> Drawing:
    """Draw PEPITA."""
    d = Drawing(270)
    chain(d, end="e")
    chain(d, y=ROW + 110, first="x + F e", end="e′")
    d.line([(LOSS, ROW + 16), (LOSS, ROW + 55), (X, ROW + 55), (X, ROW + 92)], "fixed")
    d.text(540, ROW + 44, "F e, F random", "small aside")
    for x in BLOCKS:
        d.text(x + 32, ROW + 72, "h − h′", "small")
    for x in BLOCKS:
        d.line([(x, ROW + 24), (x, ROW + 86)], "teach", point=False)
    note(d, "the second pass starts from an input with the projected error; each block learns from h − h′")
    return d


def counter_current() -> Drawing:
    """Draw counter-current learning."""
    d = Drawing(260)
    chain(d, cut=True)
    low = ROW + 110
    d.text(READOUT + 60, low, "Y")
    places = [READOUT + 40, *reversed(BLOCKS)]
    for k, x in zip((3, 2, 1), reversed(BLOCKS), strict=True):
        d.box(x, low, f"V{SUBSCRIPT[k]}", "block")
        d.line([(x, low - 24), (x, ROW + 24)], "teach")
        d.line([(x - 10, ROW + 22), (x - 10, low - 24)], "teach")
    for right, left in pairwise(places):
        d.line([(right if right == places[0] else right - 42, low), (left + 44, low)])
        if right != places[0]:
            d.cut((right + left) / 2, low)
    note(d, "a second net runs from the target to the input; each block and its partner learn to agree")
    return d


def state_feedback() -> Drawing:
    """Draw state feedback."""
    d = Drawing(210)
    for t, x in enumerate(BLOCKS, 1):
        d.box(x, ROW, f"cell, t = {t}")
        d.text(x - 14, ROW + 76, sub("x", t), "small")
        d.line([(x - 14, ROW + 64), (x - 14, ROW + 24)])
        d.text(x, ROW - 46, sub("L", t), "small")
        d.line([(x + 12, ROW - 36), (x + 12, ROW - 24)], "teach")
    for left, right in pairwise(BLOCKS):
        d.line([(left + 42, ROW - 8), (right - 44, ROW - 8)])
        low = ROW + 46
        d.line([(right + 14, ROW + 22), (right + 14, low), (left + 14, low), (left + 14, ROW + 24)], "fixed")
        d.text((left + right) / 2 + 14, low + 16, "A", "small")
    d.text(X + 10, ROW - 8, "s₀")
    d.line([(X + 26, ROW - 8), (BLOCKS[0] - 44, ROW - 8)])
    d.text(620, ROW, "… time", "")
    note(d, "back through time the error is multiplied by one fixed diagonal A, so that all steps are computed at once")
    return d


def forward_gradient() -> Drawing:
    """Draw the forward gradient."""
    d = Drawing(250)
    chain(d)
    for x in BLOCKS:
        d.box(x, ROW + 80, "v", "fixed", (42, 34))
        d.line([(x - 10, ROW + 62), (x - 10, ROW + 24)], "fixed")
        d.line([(x + 12, ROW + 130), (x + 12, ROW + 99)], "teach")
    d.line([(LOSS, ROW + 16), (LOSS, ROW + 130), (BLOCKS[0] + 12, ROW + 130)], "teach", point=False)
    d.text(READOUT, ROW + 114, "dL along v", "small")
    note(d, "the derivative along v is computed in the forward pass; times v it estimates the gradient")
    return d


def likelihood_ratio() -> Drawing:
    """Draw the likelihood ratio."""
    d = Drawing(250)
    chain(d)
    for k, x in enumerate(BLOCKS, 1):
        d.box(x, ROW + 80, sub("ε", k), "fixed", (46, 34))
        d.line([(x - 10, ROW + 62), (x - 10, ROW + 24)], "fixed")
        d.line([(x + 12, ROW + 130), (x + 12, ROW + 99)], "teach")
    d.line([(LOSS, ROW + 16), (LOSS, ROW + 130), (BLOCKS[0] + 12, ROW + 130)], "teach", point=False)
    d.text(READOUT, ROW + 114, "loss − baseline", "small")
    note(d, "noise on the activations, weighted by the resulting loss; nothing after a block is differentiated")
    return d


def home() -> list[tuple[str, Drawing]]:
    """Draw the home page's picture: backprop above, a local rule below."""
    above = Drawing(150)
    chain(above)
    backward(above, "Wᵀ")
    below = Drawing(225)
    chain(below, cut=True, end="output")
    heads(below, "M{k}")
    return [
        ("Backpropagation: one loss, and its error goes back through every block", above),
        ("A local rule (Mono-Forward): each block learns from a loss of its own", below),
    ]


FIGURES: dict[str, tuple[Callable[[], Drawing | list[tuple[str, Drawing]]], str]] = {
    "backprop": (backprop, "Backpropagation: the error passes back through every block"),
    "shallow": (shallow, "Shallow: the readout alone learns, on random blocks"),
    "mono_forward": (mono_forward, "Mono-Forward: a projection and a loss for each block"),
    "local_loss": (local_loss, "Local losses: a head and a similarity loss for each block"),
    "forward_forward": (forward_forward, "Forward-Forward: goodness of true and wrong labels in each block"),
    "forward_gnn": (forward_gnn, "ForwardGNN: virtual nodes of the classes in the graph"),
    "scalable_forward_forward": (
        scalable_forward_forward,
        "Scalable Forward-Forward: maps of each class after each block",
    ),
    "cafo": (cafo, "Cascaded Forward: random blocks, a linear predictor after each"),
    "noprop": (noprop, "NoProp: each block denoises the label by itself"),
    "model_free": (model_free, "Model-free Forward-Forward: linear maps after opaque systems"),
    "direct_feedback_alignment": (
        direct_feedback_alignment,
        "Direct feedback alignment: the error reaches each block at once",
    ),
    "feedback_alignment": (feedback_alignment, "Feedback alignment: the error goes back through random matrices"),
    "sign_symmetry": (sign_symmetry, "Sign symmetry: the error goes back through the weights' signs"),
    "product_feedback_alignment": (
        product_feedback_alignment,
        "Product feedback alignment: a fixed and a plastic matrix",
    ),
    "pepita": (pepita, "PEPITA: a second pass from an input changed by the error"),
    "counter_current": (counter_current, "Counter-current learning: a second net runs from the target"),
    "state_feedback": (state_feedback, "State feedback: a fixed diagonal carries the error back through time"),
    "forward_gradient": (forward_gradient, "Forward gradient: a derivative along a random direction"),
    "likelihood_ratio": (likelihood_ratio, "Likelihood ratio: noise weighed by its loss"),
    "home": (home, "Backpropagation sends one error back through all blocks; a local rule gives each block a loss"),
}


def svg(name: str, tall: bool = False) -> str:
    """Return the text of a figure's file.

    Args:
        name: The figure's.
        tall: Whether for a narrow screen.

    """
    draw, caption = FIGURES[name]
    drawn = draw()
    return assemble([("", drawn)] if isinstance(drawn, Drawing) else drawn, caption, tall)


def file_of(name: str, tall: bool = False) -> File:
    """Return the file of a figure, or of the one for narrow screens."""
    return FOLDER / f"{name}{'-tall' if tall else ''}.svg"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for figure in FIGURES:
        for tall in (False, True):
            file_of(figure, tall).write_text(svg(figure, tall), encoding="utf-8")
