"""Archives of arrays: read without pickle, written in one piece or not at all."""

import errno
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from localearn.errors import UserError

# What numpy and zipfile raise, between them, for a file that is cut short, damaged or something else altogether.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    MemoryError,
)


def read(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the named arrays of an npz archive.

    Raises UserError, which names the file: where it is not there or no file, is cut short or no npz archive, lacks
    some of the names, or holds Python objects, which are never unpickled.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not path.is_file():
        raise UserError(f"{path} is not a file; an npz archive is expected there")
    names = list(names)
    try:
        with zipfile.ZipFile(path) as archive:
            present = {name.removesuffix(".npy") for name in archive.namelist()}
        missing = [name for name in names if name not in present]
        if not missing:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names}
    except _UNREADABLE as error:
        if "Object arrays" in str(error):
            raise UserError(f"{path} holds arrays of Python objects; only plain numbers are read") from error
        raise UserError(
            f"{path} cannot be read as an npz archive; it is cut short, damaged or another kind of file ({error})"
        ) from error
    raise UserError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(sorted(present)) or 'nothing'}")


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz archive, creating its folder: under another name first, so that no half of it is ever found.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            named: Any = dict(arrays)  # not a keyword among them is numpy's own
            np.savez(file, **named)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def keep(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the archive of a data set just prepared, unless its folder is read-only: then it is prepared each time.

    Raises UserError where writing fails for another reason, such as a full disk.
    """
    # Mode bits bind everyone but root; a folder without any is meant to stay as it is, whoever runs this.
    if path.parent.exists() and not path.parent.stat().st_mode & 0o222:
        return
    try:
        write(path, arrays)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
