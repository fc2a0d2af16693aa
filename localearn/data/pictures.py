"""Figures of a net's results: values predicted against true ones, and rows of images."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from localearn.data.base import Batch, Data, Split
from localearn.files import atomic_write
from localearn.printing import one_line
from localearn.tasks import Regression

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = 6  # of as many outputs, at most, a picture has one each
_POINTS = 2000  # of each, at most: evenly spaced rows of the split
_INK, _BLUE = "#1b1b1b", "#0072B2"
_LEAST_PIXELS = 320  # of an image's longer side in a picture, into which each of its pixels goes in whole squares
_MARGIN, _CAPTION = 8, 18


def predicted_against_true(
    data: Data, task: Regression, predict: Callable[[Batch], Tensor], split: Split, path: Path
) -> str:
    """Plot a regression as `against_true` does, write it as a PNG, and return a line that says so.

    Args:
        data: the rows.
        task: theirs, which has their unit.
        predict: maps a batch to the outputs, (N, outputs).
        split: which rows are plotted.
        path: the file.

    """
    figure = against_true(data, task, predict, split)
    with warnings.catch_warnings():
        # A column's name may be written in letters that the font lacks; boxes stand for them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        with atomic_write(Path(path)) as temporary:
            figure.savefig(temporary, format="png")
    of = f", the first {_PANELS} of {task.outputs} outputs" if task.outputs > _PANELS else ""
    return f"predicted against true values of {data.sizes[split]:,} {split} rows{of}: {path}"


def against_true(data: Data, task: Regression, predict: Callable[[Batch], Tensor], split: Split) -> "Figure":
    """Plot each output of a regression against its target, in their own unit, a panel for each of the first six.

    Args:
        data: the rows.
        task: theirs, which has their unit.
        predict: maps a batch to the outputs, (N, outputs).
        split: which rows are plotted.

    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    outputs, targets = [], []
    for batch in data.batches(split, 4096):
        outputs.append(task.decode(predict(batch).float()).cpu())
        targets.append(task.decode(task.encode(batch.target)).cpu())
    predicted, true = torch.cat(outputs).double().numpy(), torch.cat(targets).double().numpy()
    shown = np.unique(np.linspace(0, len(true) - 1, min(len(true), _POINTS)).round().astype(int))
    panels = min(task.outputs, _PANELS)
    columns = min(panels, 3)
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.6 * columns + 0.4, 3.6 * rows + 0.3), dpi=120, layout="constrained")
    names = data.target_names or [f"output {k + 1}" if task.outputs > 1 else "" for k in range(task.outputs)]
    for k in range(panels):
        axes = figure.add_subplot(rows, columns, k + 1)
        low, high = min(true[:, k].min(), predicted[:, k].min()), max(true[:, k].max(), predicted[:, k].max())
        axes.plot([low, high], [low, high], color=_INK, linewidth=0.8, alpha=0.6)
        axes.scatter(true[shown, k], predicted[shown, k], s=10, color=_BLUE, alpha=0.6, linewidths=0)
        rmse = np.sqrt(np.mean((predicted[:, k] - true[:, k]) ** 2))
        # A dollar sign in a column's name would begin a formula, and a character that is not seen has no picture.
        axes.set_title(f"{one_line(names[k])}  RMSE {rmse:.4g}".strip(), fontsize=10, parse_math=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))  # more of their numbers would touch each other
        axes.set_xlabel("true")
        axes.set_ylabel("predicted")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def above_each_other(rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str], path: Path) -> None:
    """Write rows of images as a PNG, each row below a caption.

    Args:
        rows: of as many images each, of one size, (H, W) or (H, W, 3) uint8.
        captions: a line per row.
        path: the file.

    """
    from PIL import Image, ImageDraw

    height, width = rows[0][0].shape[:2]
    scale = max(1, _LEAST_PIXELS // 4 // max(height, width))
    wide, high = width * scale, height * scale
    size = (len(rows[0]) * (wide + _MARGIN) + _MARGIN, len(rows) * (high + _CAPTION + _MARGIN) + _MARGIN)
    canvas = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for line, (images, caption) in enumerate(zip(rows, captions, strict=True)):
        top = _MARGIN // 2 + line * (high + _CAPTION + _MARGIN)
        draw.text((_MARGIN, top), caption, fill=_INK)
        for place, pixels in enumerate(images):
            scaled = Image.fromarray(pixels).convert("RGB").resize((wide, high), Image.Resampling.NEAREST)
            canvas.paste(scaled, (_MARGIN + place * (wide + _MARGIN), top + _CAPTION))
    with atomic_write(path) as temporary:
        canvas.save(temporary, format="PNG")


def side_by_side(images: Sequence[np.ndarray], captions: Sequence[str], path: Path) -> None:
    """Write images next to each other as a PNG, each below a caption.

    Args:
        images: of one size, (H, W) or (H, W, 3) uint8.
        captions: a line per image.
        path: the file.

    """
    from PIL import Image, ImageDraw

    height, width = images[0].shape[:2]
    scale = max(1, -(-_LEAST_PIXELS // max(height, width)))
    wide, high = width * scale, height * scale
    canvas = Image.new(
        "RGB", (len(images) * (wide + _MARGIN) + _MARGIN, high + _CAPTION + 2 * _MARGIN), (255, 255, 255)
    )
    draw = ImageDraw.Draw(canvas)
    for place, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        left = _MARGIN + place * (wide + _MARGIN)
        draw.text((left, _MARGIN // 2), caption, fill=_INK)
        scaled = Image.fromarray(pixels).convert("RGB").resize((wide, high), Image.Resampling.NEAREST)
        canvas.paste(scaled, (left, _MARGIN + _CAPTION))
    with atomic_write(path) as temporary:
        canvas.save(temporary, format="PNG")
