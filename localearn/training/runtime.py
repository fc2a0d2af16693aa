"""Runtime of a run: its device, precision, deterministic algorithms and random numbers."""

import contextlib
import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from localearn.errors import UserError
from localearn.moved import former_names


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
            f"device={name} is not available: torch sees {torch.cuda.device_count()} CUDA devices; use device=cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is not available; use device=cpu")
    return device


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the device's type, name, threads and memory_bytes, for a record.

    Args:
        device: The device.

    Returns:
        `type` and `name`; `threads`, of torch on a CPU, None on a GPU; and `memory_bytes`, None where it is unknown.

    """
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
    """Wait until the device has finished all queued work.

    Args:
        device: The device; on a CPU nothing is queued.

    """
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
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """Use deterministic algorithms only inside the block, and restore torch's settings afterwards.

    Args:
        enabled: Whether to; with False the block runs unchanged.

    """
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when its handle is created
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
    """Return the states of the global generators that rules and dropout draw from, by device type.

    Args:
        device: The run's device.

    """
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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
