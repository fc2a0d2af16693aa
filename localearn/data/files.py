"""Archives of arrays, read without pickle and written atomically, in the folder of prepared data sets."""

import errno
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from localearn.errors import UserError
from localearn.files import atomic_write, kind_of_file
from localearn.moved import former_names

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


def data_folder(data_dir: str | Path | None) -> Path:
    """Return the folder of prepared data sets.

    Args:
        data_dir: the folder; None: the environment's LOCALEARN_DATA, else ~/.cache/localearn.

    """
    return Path(data_dir or os.environ.get("LOCALEARN_DATA") or "~/.cache/localearn").expanduser()


def array_names(path: Path) -> set[str]:
    """Return the names of the arrays in an npz archive.

    Args:
        path: the archive.

    Raises:
        UserError: as `read`.

    """
    _check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read(path: Path, wanted: Iterable[str], memory_bytes: float | None = None) -> dict[str, np.ndarray]:
    """Return the named arrays of an npz archive.

    An array's size is known from its header, before anything of that size is allocated. Python objects are never
    unpickled.

    Args:
        path: the archive.
        wanted: the names.
        memory_bytes: the most that they may take in all; None: the machine's memory.

    Raises:
        UserError: which names the file, where it does not exist or is no file, is cut short or no npz archive, lacks
            some of the names, holds Python objects, or more than the memory holds.

    """
    wanted = list(wanted)
    present = array_names(path)
    missing = [name for name in wanted if name not in present]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(sorted(present)) or 'nothing'}")
    try:
        _check_sizes(path, wanted, machine_memory_bytes() if memory_bytes is None else memory_bytes)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in wanted}
    except _UNREADABLE as error:
        if "Object arrays" in str(error):
            raise UserError(f"{path} holds arrays of Python objects; only plain numbers are read") from error
        raise _unreadable(path, error) from error


def _check_file(path: Path) -> None:
    there = kind_of_file(path)
    if not there:
        raise UserError(f"{path} does not exist")
    if there != "file":
        raise UserError(f"{path} is not a file; an npz archive is expected there")


def _unreadable(path: Path, error: BaseException) -> UserError:
    return UserError(
        f"{path} cannot be read as an npz archive; it is cut short, damaged or another kind of file ({error})"
    )


def _check_sizes(path: Path, wanted: Iterable[str], limit: float) -> None:
    """Raise UserError where arrays are larger than the memory, and ValueError where a member differs from its header.

    A small file can unpack to any size, and a header can declare any size, whatever follows it.
    """
    total = 0
    with zipfile.ZipFile(path) as archive:
        present = set(archive.namelist())
        for name in wanted:
            # numpy gives the plain name precedence too.
            member = archive.getinfo(name if name in present else f"{name}.npy")
            with archive.open(member) as file:
                size, dtype = _declared(file)
                if dtype.hasobject:
                    raise ValueError("Object arrays are not read")
                if file.tell() + size != member.file_size:
                    size_there = member.file_size - file.tell()
                    raise ValueError(f"{name} holds {size_there} bytes of values, and its header declares {size}")
            total += size
            if total > limit:
                raise UserError(
                    f"{path}: {name} unpacks to {size / 2**30:,.1f} GiB, with what is before it "
                    f"{total / 2**30:,.1f} GiB; this machine has {limit / 2**30:,.1f} GiB of memory"
                )


def _declared(file: IO[bytes]) -> tuple[int, np.dtype]:
    """Return the bytes of values, and their type, that the header of an npy file declares."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if any(length < 0 for length in shape):
        raise ValueError(f"a header declares the shape {shape}")
    return math.prod(shape) * dtype.itemsize, dtype


def machine_memory_bytes() -> float:
    """Return the machine's memory; infinity where it is unknown."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz archive atomically, creating its folder: under another name first, then renamed.

    Args:
        path: the archive.
        arrays: by name.

    Raises:
        OSError: where it cannot be written.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        named: Any = dict(arrays)  # not a keyword among them is numpy's own
        np.savez(file, **named)


def store(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write the archive of a data set just prepared, unless its folder is read-only: then it is prepared each time.

    Args:
        path: the archive.
        arrays: by name.

    Raises:
        UserError: where writing fails for another reason, such as a full disk.

    """
    # Mode bits do not bind root; a folder without any is meant to stay as it is, for root too.
    if path.parent.exists() and not path.parent.stat().st_mode & 0o222:
        return
    try:
        write(path, arrays)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
