"""Random crops and mirror images, a batch at a time, on the device that holds the data."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Augment = Literal["none", "crop", "crop_flip"]

PAD = 4  # pixels of zero (black) on each side before the crop, as is usual for images of this size


def augment(
    images: Tensor, how: Augment, generator: torch.Generator, own: slice = slice(None), of: int | None = None
) -> Tensor:
    """Return raw (N, C, H, W) images, each cropped at its own random place and, with "crop_flip", half mirrored.

    From the generator come, in this order: (2, N) integers in 0..2 PAD, the top and the left of each crop in the
    padded image; with "crop_flip" (N,) integers in 0..1, where 1 mirrors. A generator on the images' own device
    spares a copy for each batch. Where the images are but the rows `own` of a batch of so many, N is the batch's, and
    they are cropped as they are in it.
    """
    if how == "none":
        return images
    rows = len(images) if of is None else of
    corner = _integers(2 * PAD + 1, (2, rows), generator, images.device)[:, own]
    mirror = _integers(2, (rows,), generator, images.device)[own] if how == "crop_flip" else None
    return crop(images, corner[0], corner[1], mirror)


def crop(images: Tensor, top: Tensor, left: Tensor, mirror: Tensor | None = None) -> Tensor:
    """Return (N, C, H, W) windows of the padded images at (N,) tops and lefts, mirrored where (N,) `mirror` is 1."""
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
