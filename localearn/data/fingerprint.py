"""A name for data that changes with every bit of them and with nothing else."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def sha256(tensors: Iterable[tuple[str, Tensor]], note: str) -> str:
    """Return the SHA-256, in hexadecimal, of named tensors (their types, shapes and values) and a note in words."""
    digest = hashlib.sha256(note.encode())
    for name, tensor in tensors:
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
