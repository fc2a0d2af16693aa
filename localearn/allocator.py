"""glibc's allocator: cache the memory that a step has freed for the next one."""

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

# glibc's numbers of the options of mallopt.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
OPTIONS = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26}
CHOSEN = ("GLIBC_TUNABLES", "LD_PRELOAD")  # by which, and by MALLOC_*, a user configures the allocator


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Make glibc cache freed blocks, up to 2 GiB, each of less than 1 GiB.

    By default it returns every tensor of more than 32 MiB to the system as soon as it is freed, so that the next step
    gets it again page by page, each of which the system clears first. Nothing is done on another system, or where the
    user has set MALLOC_*, GLIBC_TUNABLES or LD_PRELOAD.

    Args:
        environment: The environment variables that are checked for these.

    Returns:
        Whether freed memory is cached from now on.

    """
    chosen = any(name.startswith("MALLOC_") or name in CHOSEN for name in environment)
    mallopt = None if chosen else _libc("mallopt")
    return mallopt is not None and all(mallopt(option, value) for option, value in OPTIONS.items())


def give_freed_memory_back() -> None:
    """Return freed memory to the system, so that its count of memory in use is right."""
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
