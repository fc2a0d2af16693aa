"""Memory of a run: its peak, the bytes of live tensors, and running out of it."""

import contextlib
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from localearn.allocator import give_freed_memory_back
from localearn.errors import UserError
from localearn.moved import former_names

# torch's error messages where host memory is exhausted, and for sizes beyond any memory.
_OUT_OF_MEMORY = re.compile("can't allocate memory|Storage size calculation overflowed|Overflow when unpacking long")


class PeakMemory:
    """Peak memory in use since this object was created.

    On Linux the high-water mark of the process is reset first, so that earlier use (imports, another run) does not
    count.

    Args:
        device: The run's device.

    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        give_freed_memory_back()  # which would otherwise count towards the process's
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> dict[str, int | None]:
        """Return the peak so far, in bytes.

        Returns:
            `allocator_bytes` of torch's allocator on a CUDA device, None elsewhere; and `process_bytes`, the resident
            set of the process, None where the system does not report it.

        """
        cuda = self.device.type == "cuda"
        return {
            "allocator_bytes": torch.cuda.max_memory_allocated(self.device) if cuda else None,
            "process_bytes": _resident_high_water_mark(),
        }


def _resident_high_water_mark() -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


@contextlib.contextmanager
def out_of_memory_error(requester: str, remedy: str) -> Iterator[None]:
    """Convert an out-of-memory error inside the block into a UserError that names the cause and a remedy.

    Args:
        requester: The option or object that needs the memory.
        remedy: The remedy, as "try ..." continues.

    Raises:
        UserError: Where torch or Python is out of memory.

    """
    try:
        yield
    except (RuntimeError, TypeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise UserError(f"out of memory at {requester}; try {remedy}") from error


class _LiveTensors(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._sizes: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if _has_storage(leaf)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if _has_storage(leaf):
                self._count(leaf.untyped_storage(), known)
        return result

    def _count(self, storage: torch.UntypedStorage, known: set[int]) -> None:
        if storage in self._sizes or storage.data_ptr() in known:
            return
        size = storage.nbytes()
        self._sizes[storage] = size
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live_bytes -= size


@contextlib.contextmanager
def live_tensor_bytes() -> Iterator[_LiveTensors]:
    """Count the bytes of the tensors created inside the block, on any device.

    It slows down every operation: use it to measure memory, not time.

    Yields:
        An object with the bytes alive now, `live_bytes`, and the most that were alive at once, `peak_bytes`.

    """
    with _LiveTensors() as mode:
        yield mode


def _has_storage(leaf: object) -> bool:
    # Forward mode stands in for a tangent of zeros with a tensor that has no storage.
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided and not leaf._is_zerotensor()


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
