"""The C library's allocator: memory that a step has freed is kept for the next one."""

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

# glibc's numbers of the options of mallopt.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
OPTIONS = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26}
CHOSEN = ("GLIBC_TUNABLES", "LD_PRELOAD")  # by which, and by MALLOC_*, a user has chosen an allocator's ways


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Have glibc keep what is freed, up to 2 GiB, in blocks of less than 1 GiB; return whether it does from now on.

    By itself it gives every tensor of more than 32 MiB back to the system as soon as it is freed, so that the next step
    gets it anew, page by page, each of which the system clears first. Nothing is done on another system, or where the
    user has chosen otherwise by MALLOC_*, GLIBC_TUNABLES or LD_PRELOAD.
    """
    chosen = any(name.startswith("MALLOC_") or name in CHOSEN for name in environment)
    mallopt = None if chosen else _libc("mallopt")
    return mallopt is not None and all(mallopt(option, value) for option, value in OPTIONS.items())


def give_freed_memory_back() -> None:
    """Give what is free back to the system, so that its count of what is in use begins with what is."""
    trim = _libc("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _libc(name: str) -> Any:
    """Return a function of glibc's, None under another C library."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
