"""An NVIDIA card, measured by its own counter as NVML shows it, with its temperature, clocks and other users."""

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

import torch

from localearn.energy.sources import AbsentError, Clock, Counter, LostError, Mark, PowerSampler
from localearn.moved import former_names

ASSUMED_PERIOD_S = 0.1  # the slowest card known; used where the counter moved too rarely to measure it
# Bits of nvmlDeviceGetCurrentClocksThrottleReasons that mean slower than the card could; idle and display bits do not.
THROTTLE_REASONS = {
    0x04: "power_cap",
    0x08: "hardware_slowdown",
    0x10: "sync_boost",
    0x20: "software_thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}
CONDITIONS_S = 0.05  # a sample costs several driver calls, so windows shorter than this share one
_MIG = "the card is cut into MIG slices, and its counter counts them all: a slice's energy cannot be known"


@final
class NvmlCounter(Counter):
    """The whole card's energy. Nothing is ever set on the card, clocks least of all.

    Volta and newer cards count millijoules c (`nvmlDeviceGetTotalEnergyConsumption`), and the energy of a window is

        E = (c_end - c_begin) / 1000 J

    Where that call is not supported the card's power is sampled on a thread and integrated, see `PowerIntegral`.

    Args:
        uuid: the card's UUID as torch has it, with or without `GPU-`. Neither index would do: NVML counts cards in
            PCI order, torch in the order of CUDA_VISIBLE_DEVICES.
        nvml: the module pynvml, or a fake of it.
        clock: stamps the samples.

    """

    part = "gpu"
    source = "nvml"
    label = "measured"
    includes_idle = True

    def __init__(self, uuid: str, *, nvml: Any = None, clock: Clock | None = None) -> None:
        self.note = ""
        self.period_s = ASSUMED_PERIOD_S
        self._timed = False
        self._uuid = "GPU-" + uuid.removeprefix("GPU-")
        self._nvml = nvml
        self._clock = clock or Clock()
        self._handle: Any = None
        self._started = False
        self._log: CardLog | None = None
        self._sampler: PowerSampler | None = None
        self._resets = 0
        self._last_mj = 0

    def counted(self) -> str:
        """Return the card's name."""
        return f"card {self._uuid}"

    def open(self) -> None:
        """Find the card.

        Raises:
            AbsentError: without a driver, for a MIG slice, and for a card that shows no power.

        """
        if self._nvml is None:
            self._nvml = importlib.import_module("pynvml")
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise AbsentError(f"NVML: {error}") from error
        self._started = True
        try:
            self._handle = _find_card(nvml, self._uuid)
            self._log = CardLog(nvml, self._handle, self._clock)
            self._start()
        except nvml.NVMLError as error:
            self.close()
            raise AbsentError(f"NVML, card {self._uuid}: {error}") from error
        except AbsentError:
            self.close()
            raise

    def _start(self) -> None:
        """Prefer the energy counter, fall back on sampled power."""
        nvml = self._nvml
        try:
            self._last_mj = nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            self.note = "NVML's energy counter; the whole card's"
        except nvml.NVMLError_NotSupported:
            nvml.nvmlDeviceGetPowerUsage(self._handle)
            self._sampler = PowerSampler(self._sampled_w, self._clock)
            self.integrates_power = True
            self.note = "NVML's power, sampled and integrated by trapezoid (no energy counter); the whole card's"

    def read(self) -> Mark:
        """Return the joules so far.

        Raises:
            LostError: where the driver does not answer.

        """
        if self._sampler is not None:
            return self._sampler.read()
        energy_mj = self._energy_mj()
        if energy_mj < self._last_mj:
            self._resets += 1
        self._last_mj = energy_mj
        return Mark(energy_mj / 1000, self._resets)

    def joules(self, begin: Mark, end: Mark) -> float:
        """Return the energy between two marks, in joules.

        Args:
            begin: what `read` returned first.
            end: what it returned later.

        Raises:
            LostError: where the counter was reset, or the driver lost, between them.

        """
        if begin.life != end.life:
            raise LostError("counter_reset" if self._sampler is None else "source_lost")
        return end.value - begin.value

    def close(self) -> None:
        """Stop sampling and let the driver go."""
        if self._sampler is not None:
            self._sampler.close()
            self._sampler = None
        if self._started:
            self._started = False
            try:
                self._nvml.nvmlShutdown()
            except self._nvml.NVMLError:
                return  # the driver went away before us, which leaves nothing to release

    def moving(self) -> float:
        """Return the raw counter in mJ, or the raw power in W where power is sampled.

        Raises:
            LostError: where the driver does not answer.

        """
        return self._energy_mj() if self._sampler is None else self._sampled_w()

    def settle(self, period_s: float) -> None:
        """Set the first update period that was measured; until then the slowest known is assumed.

        Args:
            period_s: seconds between two moves of the counter.

        """
        if not self._timed:
            self.period_s, self._timed = period_s, True

    def power_w(self) -> float | None:
        """Return the card's power now, None where the driver does not report it."""
        try:
            return self._sampled_w()
        except LostError:
            return None

    def sample_conditions(self) -> set[str]:
        """Log temperature, clocks, limits and processes; return `throttled` and `foreign_process` where they hold."""
        return self._log.sample() if self._log else set()

    def conditions(self) -> dict[str, Any]:
        """Return what was logged, ready for JSON."""
        if self._log is None:
            return {}
        return {**self._log.conditions(), "update_period_s": self.period_s, "update_period_timed": self._timed}

    def _energy_mj(self) -> int:
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except self._nvml.NVMLError as error:
            raise LostError("source_lost") from error

    def _sampled_w(self) -> float:
        try:
            return self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000
        except self._nvml.NVMLError as error:
            raise LostError("source_lost") from error


def torch_uuid(device: torch.device, cuda: Any = torch.cuda) -> str:
    """Return the UUID of a CUDA device as torch counts them.

    Args:
        device: the device; without an index the current one.
        cuda: the module torch.cuda, or a fake of it.

    Raises:
        AbsentError: where torch does not know it.

    """
    index = cuda.current_device() if device.index is None else device.index
    uuid = getattr(cuda.get_device_properties(index), "uuid", None)
    if uuid is None:
        raise AbsentError("torch does not know the card's UUID, so the right card cannot be known")
    return str(uuid)


def _find_card(nvml: Any, uuid: str) -> Any:
    """Return NVML's handle of the card. Raises `AbsentError` for a MIG slice and for a card that NVML does not know."""
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError_NotFound as error:
        if any(_is_sliced(nvml, nvml.nvmlDeviceGetHandleByIndex(i)) for i in range(nvml.nvmlDeviceGetCount())):
            raise AbsentError(_MIG) from error
        raise AbsentError(f"NVML knows no card {uuid}") from error
    if _is_sliced(nvml, handle):
        raise AbsentError(_MIG)
    return handle


def _is_sliced(nvml: Any, handle: Any) -> bool:
    try:
        return nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError_NotSupported:
        return False


@final
class CardLog:
    """Log of a card's state at the ends of windows: temperature, clocks, throttling, other processes.

    Throttling and processes that begin and end within a window are not seen.

    Args:
        nvml: the module pynvml, or a fake of it.
        handle: NVML's handle of the card.
        clock: stamps the samples; windows shorter than `CONDITIONS_S` share one.

    """

    def __init__(self, nvml: Any, handle: Any, clock: Clock) -> None:
        self._nvml = nvml
        self._handle = handle
        self._clock = clock
        self._last_s: float | None = None
        self._flags: set[str] = set()
        self._reasons: set[str] | None = None  # None until the card has answered
        self._seen: dict[str, list[float]] = {}
        self._most_others: int | None = None
        self._card = {
            "card": self._ask(nvml.nvmlDeviceGetName, handle),
            "uuid": self._ask(nvml.nvmlDeviceGetUUID, handle),
            "driver": self._ask(nvml.nvmlSystemGetDriverVersion),
        }

    def sample(self) -> set[str]:
        """Log the moment; return `throttled` and `foreign_process` where they hold."""
        now_s = self._clock.now()
        if self._last_s is not None and now_s - self._last_s < CONDITIONS_S:
            return self._flags
        self._last_s = now_s
        nvml, handle = self._nvml, self._handle
        self._note("temperature_c", self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU))
        self._note("sm_clock_mhz", self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM))
        limit_mw = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        self._note("power_limit_w", None if limit_mw is None else limit_mw / 1000)
        bits, others = self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle), self._count_other_processes()
        reasons = {name for bit, name in THROTTLE_REASONS.items() if (bits or 0) & bit}
        if bits is not None:
            self._reasons = (self._reasons or set()) | reasons
        if others is not None:
            self._most_others = max(self._most_others or 0, others)
        self._flags = ({"throttled"} if reasons else set()) | ({"foreign_process"} if others else set())
        return self._flags

    def conditions(self) -> dict[str, Any]:
        """Return the card's name and the range of every value seen, ready for JSON.

        `throttle_reasons` and `foreign_processes` are None where the driver never reported them, which is not none.
        """
        ranges = {
            name: {"first": values[0], "last": values[1], "min": values[2], "max": values[3]}
            for name, values in self._seen.items()
        }
        return {
            **self._card,
            **ranges,
            "throttle_reasons": None if self._reasons is None else sorted(self._reasons),
            "foreign_processes": self._most_others,
        }

    def _count_other_processes(self) -> int | None:
        """Count the processes that compute on the card and are not this one; None where NVML shows no process at all.

        In a container NVML lists processes by ids that are not the container's: then one of them is taken to be this
        process, whose context is alive. Or it lists none, not even this one, and the others are unknown.
        """
        running = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle)
        if not running:
            return None
        others = [process for process in running if process.pid != os.getpid()]
        return len(others) if len(others) < len(running) else len(others) - 1

    def _note(self, name: str, value: float | None) -> None:
        if value is None:
            return
        first, _, low, high = self._seen.get(name, [value] * 4)
        self._seen[name] = [first, value, min(low, value), max(high, value)]

    def _ask(self, query: Callable[..., Any], *args: Any) -> Any:
        """Return the answer to a query, None from a card that does not support it."""
        try:
            answer = query(*args)
        except self._nvml.NVMLError:
            return None
        return answer.decode() if isinstance(answer, bytes) else answer


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
