"""Images as sequences of patches: what vision transformers and mixers begin with."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.nets.layers import check_image


class Patches(nn.Module):
    """Maps each patch of an image, row by row, to D values: (N, C, H, W) to (N, T, D), T = (H / p) (W / p).

    Args:
        shape: (C, H, W).
        patch: p, the side of a patch.
        width: D.
        positions: whether each patch's place is added, see `places`; it is a buffer, for it is never trained.

    """

    places: Tensor | None

    def __init__(self, shape: tuple[int, ...], patch: int, width: int, *, positions: bool = False):
        super().__init__()
        self.patch = patch
        self.map = nn.Linear(shape[0] * patch * patch, width)
        self.register_buffer("places", places(shape[1] // patch, shape[2] // patch, width) if positions else None)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return (N, T, D)."""
        h = self.map(F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2))
        return h if self.places is None else h + self.places


def places(rows: int, columns: int, width: int) -> Tensor:
    """Return (rows columns, width): sines and cosines of a patch's column and row, a quarter of the values each.

    The wavelengths grow geometrically from 2 pi to 10,000 times that: Beyer, Zhai, Kolesnikov, arXiv 2205.01580.
    """
    if width % 4:
        raise UserError(f"a place is sines and cosines of two coordinates, so width is a multiple of 4, not {width}")
    frequencies = torch.exp(torch.arange(width // 4) * (-math.log(10_000) / max(width // 4 - 1, 1)))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (column, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)


def check_patches(net: str, input_shape: tuple[int, ...] | int, patch: int) -> tuple[int, ...]:
    """Return an image's shape, or raise a UserError unless patches of that side divide it."""
    shape = check_image(net, input_shape)
    sides = [side for side in range(1, min(shape[1:]) + 1) if not shape[1] % side and not shape[2] % side]
    if patch not in sides:
        raise UserError(
            f"patches of {patch}x{patch} do not divide images of {shape[1]}x{shape[2]}; "
            f"use net.patch={', '.join(map(str, sides[1:] or sides))}"
        )
    return shape
