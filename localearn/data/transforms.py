"""Normalisation and augmentation, a batch at a time, on the device that holds the data."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Normalize = Literal["standard", "unit", "rows", "none"]
Augment = Literal["none", "crop", "crop_flip"]
_CHUNK_ROWS = 1024  # statistics are taken in float64, a chunk at a time, which bounds their memory
PAD = 4  # pixels of zero (black) on each side before the crop, as is usual for images of this size


@dataclass(frozen=True, slots=True)
class Scaling:
    """Map each channel or feature, x -> (x - center) * scale; integers become float32 first.

    Attributes:
        center: float32, broadcast over a batch of rows.
        scale: likewise.
        note: the map in words, for fingerprints.

    """

    center: Tensor
    scale: Tensor
    note: str

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the mapped (N, ...) rows, float32, in new memory."""
        return torch.sub(rows, self.center).mul_(self.scale)

    def to(self, device: torch.device | str) -> "Scaling":
        """Return the same map on `device`."""
        return Scaling(self.center.to(device), self.scale.to(device), self.note)


def standard(train: Tensor) -> Scaling:
    """Return the map to mean 0 and standard deviation 1, per channel of (N, C, H, W), per feature of (N, D), (N, T, D).

    A channel or feature that does not vary is centred and not scaled.

    Args:
        train: the training rows, of which the statistics are.

    """
    mean, std = _level_moments(train) if train.ndim == 4 and train.dtype == torch.uint8 else _moments(train)
    varies = std > torch.finfo(torch.float32).eps * mean.abs()
    scale = torch.where(varies, std, 1.0).reciprocal()
    shape = (-1, 1, 1) if train.ndim == 4 else (-1,)
    return Scaling(mean.float().view(shape), scale.float().view(shape), "standard")


def unit(train: Tensor, levels: tuple[int, int] | None = None) -> Scaling:
    """Return the map to 0..1.

    Args:
        train: the training rows, whose extremes are the range where `levels` is None.
        levels: the lowest and highest value that rows can have.

    """
    low, high = levels or (train.min().item(), train.max().item())
    scale = 1.0 / (high - low) if high > low else 1.0
    return Scaling(torch.tensor(float(low)), torch.tensor(scale), f"unit {low} {high}")


def row_shares(x: Tensor) -> Tensor:
    """Return rows divided by their sums, as bags of words are given to graph nets, float32; empty rows stay empty.

    Args:
        x: (N, D), any numbers; float64 is taken for the sums.

    """
    sums = x.double().sum(1, keepdim=True)
    return torch.where(sums == 0, 0.0, x / sums).float()


def _level_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel of uint8 images, exactly: from how often each of the 256 levels occurs."""
    counts = torch.stack([images[:, c].flatten().bincount(minlength=256) for c in range(images.shape[1])]).double()
    share = counts / counts.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64, device=images.device)
    mean = share @ levels
    return mean, (share * (levels - mean[:, None]).square()).sum(1).sqrt()


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel or feature, in two float64 passes."""
    dims = {4: [0, 2, 3], 3: [0, 1]}.get(rows.ndim, [0])
    features = rows.shape[2 if rows.ndim == 3 else 1]
    count = rows.numel() // features
    total = torch.zeros(features, dtype=torch.float64)
    for chunk in rows.split(_CHUNK_ROWS):
        total += chunk.double().sum(dims)
    mean = total / count
    squares = torch.zeros_like(total)
    centre = mean.view(-1, 1, 1) if rows.ndim == 4 else mean
    for chunk in rows.split(_CHUNK_ROWS):
        squares += (chunk.double() - centre).square().sum(dims)
    return mean, (squares / count).sqrt()


def augment(
    images: Tensor, how: Augment, generator: torch.Generator, own: slice = slice(None), of: int | None = None
) -> Tensor:
    """Return raw (N, C, H, W) images, each cropped at its own random place and, with "crop_flip", half mirrored.

    From the generator come, in this order: (2, N) integers in 0..2 PAD, the top and the left of each crop in the
    padded image; with "crop_flip" (N,) integers in 0..1, where 1 mirrors. A generator on the images' own device
    saves a copy for each batch.

    Args:
        images: the rows, all of a batch or those of one rank.
        how: none, crop or crop_flip.
        generator: of the draws, on any device.
        own: which rows of a whole batch the images are; they are cropped as they are in it.
        of: N of the whole batch; by default the images'.

    """
    if how == "none":
        return images
    rows = len(images) if of is None else of
    corner = _integers(2 * PAD + 1, (2, rows), generator, images.device)[:, own]
    mirror = _integers(2, (rows,), generator, images.device)[own] if how == "crop_flip" else None
    return crop(images, corner[0], corner[1], mirror)


def crop(images: Tensor, top: Tensor, left: Tensor, mirror: Tensor | None = None) -> Tensor:
    """Return (N, C, H, W) windows of the padded images.

    Args:
        images: (N, C, H, W).
        top: (N,) the first line of each window.
        left: (N,) its first column.
        mirror: (N,) 1 where it is mirrored.

    """
    channels, height, width = images.shape[1:]
    across = torch.arange(width, device=images.device).expand(len(images), -1)
    if mirror is not None:
        across = torch.where(mirror[:, None] == 1, width - 1 - across, across)
    row = top[:, None] + torch.arange(height, device=images.device)
    column = left[:, None] + across
    pixel = row[:, :, None] * (width + 2 * PAD) + column[:, None, :]
    padded = F.pad(images, (PAD, PAD, PAD, PAD))
    window = padded.flatten(2).gather(2, pixel.flatten(1)[:, None].expand(-1, channels, -1))
    return window.view_as(images)


def _integers(high: int, shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw integers in 0..high-1 where the generator is and bring them to where the images are."""
    return torch.randint(high, shape, generator=generator, device=generator.device).to(device, non_blocking=True)
