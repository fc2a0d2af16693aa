"""Peak memory: the allocator's on a GPU, the process's elsewhere, the live tensors' where activations are counted."""

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

# What torch says of a host's memory, and of sizes that no memory could have.
_FULL = re.compile("can't allocate memory|Storage size calculation overflowed|Overflow when unpacking long")


class PeakMemory:
    """The most memory that was in use since it was made.

    `allocator_bytes`: of torch's allocator on a CUDA device, None elsewhere. `process_bytes`: of the process's resident
    set, None where the system does not tell; on Linux the high-water mark is set back first, so that what came before
    (imports, another run) does not count.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        give_freed_memory_back()  # which else would count as the process's
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> dict[str, int | None]:
        """Return `allocator_bytes` and `process_bytes` so far."""
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
    """Turn running out of memory inside into a UserError that names what was asked for, and what to try."""
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


def _has_storage(leaf: object) -> bool:
    # Forward mode stands in for a tangent of zeros with a tensor that has no storage.
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided and not leaf._is_zerotensor()


@contextlib.contextmanager
def live_tensor_bytes() -> Iterator[_LiveTensors]:
    """Count the bytes of the tensors made inside, on any device; `peak_bytes` is the most that lived at once.

    It slows every operation down: for measuring memory, not time.
    """
    with _LiveTensors() as mode:
        yield mode
