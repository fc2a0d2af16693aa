"""Images as functions from coordinates to colours, of a user's own file or of scikit-learn's photographs."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.embedded import photograph
from localearn.data.imagefolder import decoded
from localearn.data.partition import check_fraction, check_seed, held_out_size, hold_out
from localearn.data.pictures import side_by_side
from localearn.errors import UserError
from localearn.files import kind_of_file
from localearn.moved import former_names
from localearn.options import checked_call
from localearn.tasks import Criterion, Regression

Photograph = Literal["china", "flower"]

_TEST_SEED = 0  # of the test pixels: they are the same for everyone, whatever the seed of the validation
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_BYTES = 4 * 2**30  # the most that encoded coordinates may take
_MOST_OCTAVES = 24  # of which the highest turns a float32's last digits


@checked_call
def coordinates(
    path: str | Path | None = None,
    *,
    size: int | None = 128,
    octaves: int = 6,
    test_fraction: float = 0.1,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    train_size: int | None = None,
    criterion: Criterion = "squared",
) -> "CoordinateData":
    """Load an image of the user's own as (x, y) -> colour, its pixels split in three at random, on the CPU.

    A row is the position of a pixel's centre, x and y from -1 to 1, followed by its positional encoding, for k = 0, 1,
    ..., octaves - 1 sin and cos of 2^k pi x and of 2^k pi y (Mildenhall et al., arXiv 2003.08934, eq. 4); the target is
    its colour, red, green and blue or grey, standardised by the training split. A net that learns it represents the
    image, and can be evaluated between its pixels. The metric is PSNR in dB, of levels from 0 to 255.

    Args:
        path: the file, of any kind that Pillow reads; transparent parts are shown on black, and the image is rotated
            as its EXIF orientation says.
        size: the pixels of its longer side, to which a larger image is scaled down; null: as it is.
        octaves: see above; 0 leaves x and y alone.
        test_fraction: the share of pixels that is held out as the test, the same for every split_seed.
        val_fraction: the share of the others that is held out for validation.
        split_seed: of the draw of those, and of train_size's.
        train_size: the number of training pixels to use.
        criterion: the loss, "squared", "absolute" or "huber".

    Raises:
        UserError: for a file that is no image, one of a single colour, one that is too small to be split, and for
            options out of their range.

    Example:
        data = localearn.data.coordinates("portrait.jpg")
        net = localearn.MLP(data.input_shape, data.task.outputs).for_task(data.task)
        localearn.MonoForward(net).fit(data, epochs=100)

    """
    if path is None:
        raise UserError("coordinates needs a path; give path=picture.png, or use dataset=photo, which needs none")
    path = Path(path).expanduser()
    there = kind_of_file(path)
    if there != "file":
        raise UserError(f"{path} is no file" if there else f"{path} does not exist")
    return _of_image(
        "coordinates", path, size, octaves, (test_fraction, val_fraction, split_seed), train_size, criterion
    )


@checked_call
def photo(
    image: Photograph = "china",
    *,
    size: int | None = 96,
    octaves: int = 6,
    test_fraction: float = 0.1,
    val_fraction: float = 0.1,
    split_seed: int = 0,
    train_size: int | None = None,
    criterion: Criterion = "squared",
) -> "CoordinateData":
    """Load one of scikit-learn's photographs, which that package includes, as `coordinates` does an image.

    Args:
        image: "china", a temple, or "flower"; both have 640 x 427 pixels.
        size: as of `coordinates`.
        octaves: as of `coordinates`.
        test_fraction: as of `coordinates`.
        val_fraction: as of `coordinates`.
        split_seed: as of `coordinates`.
        train_size: as of `coordinates`.
        criterion: as of `coordinates`.

    Raises:
        UserError: as `coordinates`.

    Example:
        data = localearn.data.photo("flower", size=64)

    """
    path = photograph(image)
    return _of_image("photo", path, size, octaves, (test_fraction, val_fraction, split_seed), train_size, criterion)


def _of_image(
    name: str,
    path: Path,
    size: int | None,
    octaves: int,
    split: tuple[float, float, int],
    train_size: int | None,
    criterion: Criterion,
) -> "CoordinateData":
    test_fraction, val_fraction, seed = split
    check_fraction("test", test_fraction)
    check_fraction("val", val_fraction)
    check_seed("split_seed", seed)
    if size is not None and size < 2:
        raise UserError(f"size is {size}; it must be at least 2 pixels, or null")
    if not 0 <= octaves <= _MOST_OCTAVES:
        raise UserError(f"octaves is {octaves}; it must lie between 0 and {_MOST_OCTAVES}")
    pixels = decoded(path, None if size is None else (lambda image: _scaled_down(image, size)), upright=True)
    height, width = pixels.shape[:2]
    if 4 * height * width * (2 + 4 * octaves) > _BYTES:
        raise UserError(
            f"{path} has {width}x{height} pixels, which take too much memory by {octaves} octaves; give size="
        )
    if (pixels == pixels[0, 0]).all():
        raise UserError(f"{path} is of one colour, so there is nothing to predict")
    every = np.zeros(height * width, dtype=np.int64)
    rest, test = hold_out(every, held_out_size("test", len(every), test_fraction, where=str(path)), _TEST_SEED)
    train, val = hold_out(every[rest], held_out_size("val", len(rest), val_fraction, where=str(path)), seed)
    train, val = rest[train], rest[val]
    if train_size is not None:
        if not 1 <= train_size <= len(train):
            raise UserError(f"train_size is {train_size}; it must lie between 1 and {len(train)}, the training split")
        train = train[hold_out(every[train], train_size, seed)[1]]
    rows = {"train": train, "val": val, "test": test}
    return CoordinateData(name, pixels, octaves, {split: rows[split] for split in _SPLITS}, criterion, str(path))


class CoordinateData(ArrayData):
    """Hold the pixels of an image: x their encoded coordinates, y their colours."""

    def __init__(
        self,
        name: str,
        pixels: np.ndarray,
        octaves: int,
        rows: dict[Split, np.ndarray],
        criterion: Criterion = "squared",
        where: str | None = None,
    ) -> None:
        """Encode the coordinates of an image's pixels and hold them.

        Args:
            name: the data set's name in records.
            pixels: (H, W) or (H, W, 3), uint8, or uint16 of 16 bits.
            octaves: of the positional encoding.
            rows: for each split the numbers of its pixels, line by line.
            criterion: the loss.
            where: the image's file, for error messages.

        Raises:
            UserError: where a colour does not vary among the training pixels.

        """
        self.pixels, self.octaves = pixels, octaves
        colours = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1).astype(np.float64)
        train = colours[rows["train"]]
        center, scale = train.mean(0), train.std(0)
        if not scale.any():
            raise UserError(f"{where or name}: the training pixels are of one colour; give a larger size")
        scale = np.where(scale > 0, scale, 1.0)  # a channel may be constant where others are not
        task = Regression(
            outputs=colours.shape[1],
            criterion=criterion,
            center=tuple(center.tolist()),
            scale=tuple(scale.tolist()),
            peak=float(np.iinfo(pixels.dtype).max),
        )
        x = _encoded_pixels(pixels, octaves)
        y = torch.from_numpy((colours - center) / scale).float()
        index: dict[Split, Tensor] = {split: torch.from_numpy(own) for split, own in rows.items()}
        rows_of: dict[Split, Tensor] = {split: x[own] for split, own in index.items()}
        colours_of: dict[Split, Tensor] = {split: y[own] for split, own in index.items()}
        super().__init__(name, rows_of, colours_of, 0, task=task)
        self.notes = (f"an image of {pixels.shape[1]}x{pixels.shape[0]} pixels, {octaves} octaves",)
        self.target_names = ("red", "green", "blue") if colours.shape[1] == 3 else ("grey",)

    def features(self, name: str, fn: Callable[..., Tensor], batch_size: int) -> ArrayData:
        """Return plain data of `fn(x)`, see `Data.features`, since features are not coordinates."""
        mapped = copy.copy(self)
        mapped.__class__ = ArrayData  # pyright: ignore[reportAttributeAccessIssue]
        return ArrayData.features(mapped, name, fn, batch_size)

    @torch.no_grad()
    def illustrate(self, predict: Callable[..., Tensor], folder: Path) -> tuple[str, ...]:
        """Write the image and the net's reconstruction from its coordinates, side by side, `reconstruction.png`."""
        task = self.task
        assert isinstance(task, Regression) and task.peak is not None
        like = self._y["train"]
        rows = _encoded_pixels(self.pixels, self.octaves).split(8192)
        output = torch.cat([task.decode(predict(part.to(like.device)).float()).cpu() for part in rows]).numpy()
        output = output.reshape(self.pixels.shape)
        error = np.mean((output - self.pixels.astype(np.float64)) ** 2)
        psnr = 10 * math.log10(task.peak**2 / error) if error else math.inf
        level = 255 / task.peak
        images = [(np.clip(values * level, 0, 255)).round().astype(np.uint8) for values in (self.pixels, output)]
        path = folder / "reconstruction.png"
        side_by_side(images, ("true", f"reconstructed, {psnr:.1f} dB"), path)
        return (f"the image next to its reconstruction, {psnr:.1f} dB over all of its pixels: {path}",)


def centres(height: int, width: int) -> Tensor:
    """Return x and y of the pixels' centres, line by line, (H W, 2) float32, the image reaching from -1 to 1.

    Args:
        height: H.
        width: W.

    """
    y, x = ((torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1 for n in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], 1).float()


def positional_encoding(points: Tensor, octaves: int) -> Tensor:
    """Compute the positional encoding of points, in their own precision.

    Mildenhall et al., arXiv 2003.08934, eq. 4.

    Args:
        points: (..., D) coordinates x.
        octaves: K.

    Returns:
        x, followed by sin(2^k pi x) and cos(2^k pi x) for k = 0..K-1, (..., D + 2 D K).

    """
    if not octaves:
        return points
    scales = math.pi * 2.0 ** torch.arange(octaves, device=points.device, dtype=points.dtype)
    angles = scales[:, None] * points.unsqueeze(-2)
    waves = torch.stack([angles.sin(), angles.cos()], -2)  # (..., octaves, 2, D)
    return torch.cat([points, waves.flatten(-3)], -1)


def _encoded_pixels(pixels: np.ndarray, octaves: int) -> Tensor:
    """Return the encoded centres of an image's pixels, (H W, 2 + 4 K) float32."""
    height, width = pixels.shape[:2]
    # In float64, since float32 would lose the highest octaves.
    return positional_encoding(centres(height, width).double(), octaves).float()


def _scaled_down(image, size: int):
    """Return a Pillow image whose longer side has `size` pixels, or the image itself where it has no more."""
    from PIL import Image

    longer = max(image.size)
    if longer <= size:
        return image
    shape = [max(1, round(n * size / longer)) for n in image.size]
    return image.resize(tuple(shape), Image.Resampling.BOX if image.mode == "F" else Image.Resampling.LANCZOS)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
