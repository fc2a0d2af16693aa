"""Memory of a run: its peak, the bytes of live tensors, and running out of it."""

import contextlib
import re
import weakref
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from localearn.allocator import give_freed_memory_back
from localearn.errors import UserError

# torch's error messages for a full host memory, and for sizes that no memory could have.
_FULL = re.compile("can't allocate memory|Storage size calculation overflowed|Overflow when unpacking long")


class PeakMemory:
    """The most memory in use since this object was created.

    On Linux the high-water mark of the process is reset first, so that what came before (imports, another run) does not
    count.

    Args:
        device: The run's device.

    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        give_freed_memory_back()  # which would otherwise count as the process's
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> dict[str, int | None]:
        """Return the most bytes in use so far.

        Returns:
            `allocator_bytes`, of torch's allocator on a CUDA device, None elsewhere; and `process_bytes`, of the
            process's resident set, None where the system does not report it.

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
def full_memory_told(asked: str, instead: str) -> Iterator[None]:
    """Convert running out of memory inside the block into a UserError that names the cause and a remedy.

    Args:
        asked: The option or object that asked for the memory.
        instead: The remedy, as "try ..." continues.

    Raises:
        UserError: Where torch or Python is out of memory.

    """
    try:
        yield
    except (RuntimeError, TypeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not _FULL.search(str(error)):
            raise
        raise UserError(f"the memory is full at {asked}; try {instead}") from error


class _LiveTensors(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._seen: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if _has_storage(leaf)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if _has_storage(leaf):
                self._count(leaf.untyped_storage(), known)
        return result

    def _count(self, storage: torch.UntypedStorage, known: set[int]) -> None:
        if storage in self._seen or storage.data_ptr() in known:
            return
        size = storage.nbytes()
        self._seen[storage] = size
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live_bytes -= size


@contextlib.contextmanager
def live_tensor_bytes() -> Iterator[_LiveTensors]:
    """Count the bytes of the tensors created inside the block, on any device.

    It slows every operation down: for measuring memory, not time.

    Yields:
        An object whose `live_bytes` are those alive now, and `peak_bytes` the most that were alive at once.

    """
    with _LiveTensors() as mode:
        yield mode


def _has_storage(leaf: object) -> bool:
    # Forward mode stands in for a tangent of zeros with a tensor that has no storage.
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided and not leaf._is_zerotensor()
