"""What an NVIDIA card was doing while it was measured: temperature, clocks, throttling, other users."""

import os
from collections.abc import Callable
from typing import Any, final

from localearn.energy.clock import Clock

# Bits of nvmlDeviceGetCurrentClocksThrottleReasons that mean slower than the card could; idle and display bits do not.
THROTTLE_REASONS = {
    0x04: "power_cap",
    0x08: "hardware_slowdown",
    0x10: "sync_boost",
    0x20: "software_thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}
LOOK_S = 0.05  # a look costs several driver calls, so windows shorter than this share one


@final
class CardLog:
    """Looks at a card when a window ends and remembers what it saw.

    nvml: the module pynvml, or a stand-in for it.
    handle: NVML's handle of the card.
    clock: tells when the last look is too old.
    """

    def __init__(self, nvml: Any, handle: Any, clock: Clock) -> None:
        self._nvml = nvml
        self._handle = handle
        self._clock = clock
        self._last_s: float | None = None
        self._flags: set[str] = set()
        self._reasons: set[str] = set()
        self._seen: dict[str, list[float]] = {}
        self._foreign = 0
        self._card = {
            "card": self._ask(nvml.nvmlDeviceGetName, handle),
            "uuid": self._ask(nvml.nvmlDeviceGetUUID, handle),
            "driver": self._ask(nvml.nvmlSystemGetDriverVersion),
        }

    def look(self) -> set[str]:
        """Log the moment; return `throttled` and `foreign_process` where they hold."""
        now_s = self._clock.now()
        if self._last_s is not None and now_s - self._last_s < LOOK_S:
            return self._flags
        self._last_s = now_s
        nvml, handle = self._nvml, self._handle
        self._note("temperature_c", self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU))
        self._note("sm_clock_mhz", self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM))
        limit_mw = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        self._note("power_limit_w", None if limit_mw is None else limit_mw / 1000)
        bits = self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
        reasons = {name for bit, name in THROTTLE_REASONS.items() if bits & bit}
        foreign = self._foreign_processes()
        self._reasons |= reasons
        self._foreign = max(self._foreign, foreign)
        self._flags = ({"throttled"} if reasons else set()) | ({"foreign_process"} if foreign else set())
        return self._flags

    def conditions(self) -> dict[str, Any]:
        """Return the card's name and the range of every value seen, ready for JSON."""
        ranges = {
            name: {"first": values[0], "last": values[1], "min": values[2], "max": values[3]}
            for name, values in self._seen.items()
        }
        return {
            **self._card,
            **ranges,
            "throttle_reasons": sorted(self._reasons),
            "foreign_processes": self._foreign,
        }

    def _foreign_processes(self) -> int:
        """Count the processes that compute on the card and are not this one.

        In a container NVML names processes by numbers that are not ours, or none at all; then one of them is taken to
        be this process, whose context is alive.
        """
        running = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle) or []
        own = os.getpid()
        others = [process for process in running if process.pid != own]
        return len(others) if len(others) < len(running) else max(0, len(others) - 1)

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
