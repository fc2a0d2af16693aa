"""Locks that the system releases when their holder ends, however it ends."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

# What a file system without locks says.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class Held(Exception):
    """Another process, or another part of this one, holds the lock."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file, which is made and then removed; yield False where the file system has no locks.

    Raises `Held` if it is held and `wait` is false, and OSError if the file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, blocking=wait)
    try:
        lock.acquire()
    except Timeout:
        raise Held from None
    except NotImplementedError:
        lock = None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lock = None
    try:
        yield lock is not None
    finally:
        if lock:
            with contextlib.suppress(OSError):  # Windows removes no file that is open
                path.unlink(missing_ok=True)
            lock.release()
