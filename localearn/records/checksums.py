"""Checksums of a run's binary files, so that a flipped bit is told and never trained or exported."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MARK = b"\nlocalearn-sha256 "  # after a checkpoint's archive, whose readers look for its end from behind
_LENGTH = len(_MARK) + 64
_CHUNK = 1 << 20


def append_checksum(path: Path) -> None:
    """Append the SHA-256 of a file's bytes to it; a zip archive stays readable as one."""
    digest = _file_digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_MARK + digest.encode())


def is_intact(path: Path) -> bool:
    """Whether a file is what its checksum says; one without a checksum, as older versions wrote it, is."""
    size = path.stat().st_size
    if size < _LENGTH:
        return True
    with path.open("rb") as file:
        file.seek(size - _LENGTH)
        end = file.read(_LENGTH)
    if not end.startswith(_MARK):
        return True
    return end.removeprefix(_MARK) == _file_digest(path, size - _LENGTH).encode()


def digest_of(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of named tensors, with their dtypes and shapes, and of the plain values beside them."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _file_digest(path: Path, size: int) -> str:
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
