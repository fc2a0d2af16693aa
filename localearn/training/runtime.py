"""Runtime of a run: device, precision, random numbers, memory and memory layout."""

import contextlib
import os
import platform
import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from localearn.allocator import give_freed_memory_back
from localearn.errors import UserError
from localearn.trainers.base import Trainer


def select_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: "cpu", "cuda" (or "cuda:1"), "mps", or "auto", which is a GPU where there is one.

    Raises:
        UserError: For another name, and where that device is not available.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device is auto, cpu, cuda (or cuda:1) or mps, not {name!r}") from None
    if device.type not in ("cpu", "cuda", "mps") or (device.type != "cuda" and device.index):
        raise UserError(f"device is auto, cpu, cuda (or cuda:1) or mps, not {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device={name} is not there: torch sees {torch.cuda.device_count()} CUDA devices; use device=cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is not there; use device=cpu")
    return device


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the device's type, name, threads and memory_bytes, for a record."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {"type": "cuda", "name": properties.name, "threads": None, "memory_bytes": properties.total_memory}
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    return {"type": device.type, "name": _cpu_name(), "threads": torch.get_num_threads(), "memory_bytes": pages}


def _cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a precision.

    Args:
        device: The device whose operations are cast.
        precision: "fp32", which casts nothing, or "bf16".

    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Use deterministic algorithms only, inside the block, and restore torch's settings afterwards.

    Args:
        wanted: False changes nothing.

    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when its handle is made
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark


def derived_seed(*parts: int) -> int:
    """Return a seed, 0..2^63 - 1, that depends on every part and is unrelated for unequal parts.

    Args:
        parts: Whole numbers of 0 or more, say a seed, a phase and an epoch; hashed by numpy's SeedSequence.

    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_random(device: torch.device, seed: int) -> None:
    """Seed the global generators that a run on this device draws from: the CPU's and the device's only.

    Args:
        device: The run's device.
        seed: In [0, 2^63).

    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the global generators from which rules and dropout draw, by device type."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(device: torch.device, state: dict[str, torch.Tensor]) -> None:
    """Restore the states that `random_state` returned.

    Args:
        device: The run's device.
        state: The states; a device type that it lacks is left as it is.

    """
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


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


def _has_storage(leaf: object) -> bool:
    # Forward mode stands in for a tangent of zeros with a tensor that has no storage.
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided and not leaf._is_zerotensor()


@contextlib.contextmanager
def live_tensor_bytes() -> Iterator[_LiveTensors]:
    """Count the bytes of the tensors created inside the block, on any device.

    It slows every operation down: for measuring memory, not time.

    Yields:
        An object whose `live_bytes` are those alive now, and `peak_bytes` the most that were alive at once.

    """
    with _LiveTensors() as mode:
        yield mode


def lay_out(trainer: Trainer, wanted: str, precision: str) -> Callable[[], None]:
    """Lay the rule's 4-dimensional tensors out as `Settings.memory_format` asks for.

    Only strides change. A convolution takes its maps' layout from its weights, so inputs need not be touched.

    Args:
        trainer: The rule, on the run's device.
        wanted: "auto", "channels_last" or "contiguous".
        precision: "fp32" or "bf16", by which "auto" decides on a CUDA device.

    Returns:
        A function that restores contiguous tensors.

    """
    if not _channels_last(trainer, wanted, precision):
        return lambda: None
    _to(trainer, torch.channels_last)
    return lambda: _to(trainer, torch.contiguous_format)


def like_their_parameters(parameters: Iterable[Tensor]) -> None:
    """Lay each `.grad` out as its parameter is, which fused optimizers require.

    Args:
        parameters: The parameters; only channels_last ones of 4 dimensions are changed.

    """
    for p in parameters:
        if p.dim() == 4 and p.grad is not None and p.is_contiguous(memory_format=torch.channels_last):
            p.grad = p.grad.contiguous(memory_format=torch.channels_last)


def _channels_last(trainer: Trainer, wanted: str, precision: str) -> bool:
    if not any(isinstance(module, nn.Conv2d) for module in trainer.modules()):
        return False
    if wanted != "auto":
        return wanted == "channels_last"
    # Measured on a CPU (results/bench/NOTES.md), where what torch.func vectorises becomes slower by it; on a GPU the
    # units that multiply bfloat16 are said to want it.
    if not trainer.likes_channels_last:
        return False
    device = next(trainer.parameters()).device.type
    return device == "cpu" or (device == "cuda" and precision == "bf16")


@torch.no_grad()
def _to(trainer: Trainer, memory_format: torch.memory_format) -> None:
    for tensor in (*trainer.parameters(), *trainer.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)
