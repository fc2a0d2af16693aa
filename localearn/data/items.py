"""What an item or a batch of people's own holds."""

from typing import Any

import numpy as np
import torch

from localearn.errors import UserError


def as_array(what: str, value: Any) -> np.ndarray:
    """Return a tensor, an array, or what NumPy makes one of, as an array.

    Raises UserError, which calls it `what`, where none can be made, and for sparse tensors and masked values.
    """
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided:
            raise UserError(f"{what} is a sparse tensor; give value.to_dense()")
        value = value.detach().cpu()
        if value.is_quantized or (value.is_floating_point() and value.dtype != torch.float64):
            value = value.float() if not value.is_quantized else value.dequantize()
        return value.resolve_conj().resolve_neg().numpy()
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise UserError(f"{what} is {type(value).__name__}, of which no array can be made ({error})") from error
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise UserError(f"{what} has masked values; fill them in, or leave their rows out")
    return array


def as_pair(what: str, item: Any) -> tuple[Any, Any]:
    """Return x and y of an item or a batch. Raises UserError, which calls it `what`, unless it is such a pair."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        told = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        raise UserError(f"{what} is {told}; a pair (x, y) is expected")
    return item[0], item[1]
