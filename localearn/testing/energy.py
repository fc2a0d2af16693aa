# ruff: noqa: N802, D102  (the names are NVML's, and so is what they do)
"""Stand-ins for NVML and for an energy counter, to test their readers on a machine without a GPU.

Example:
    clock = FakeClock()
    nvml = FakeNvml(clock, FakeCard("GPU-0", Script([(0.0, 300.0)])))
    meter = Meter(sources=[NvmlCounter("GPU-0", nvml=nvml, clock=clock.clock)], clock=clock.clock)

"""

import json
import math
from collections import Counter as Counts
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol, final

from localearn.energy.sources import AbsentError, Clock, Counter, LostError, Mark


@final
class FakeClock:
    """Simulate a clock that moves by `advance`, or when a caller sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.clock = Clock(now=lambda: self.now_s, sleep=self.advance)

    def advance(self, seconds: float) -> None:
        """Move on.

        Args:
            seconds: by how many.

        """
        self.now_s += seconds


class Source(Protocol):
    """Describe a card's readings at a time: its power in W and its energy counter in mJ."""

    def power_w(self, now_s: float) -> float: ...

    def energy_mj(self, now_s: float) -> int: ...


@final
class Script:
    """Simulate power that runs straight between points, and its exact integral; both move every `period_s` seconds.

    Args:
        points: (seconds, watts), in order; the power stays as it is before the first and after the last.
        period_s: seconds between two refreshes of the card's readings.

    """

    def __init__(self, points: list[tuple[float, float]], period_s: float = 0.02) -> None:
        self._points = points
        self._period_s = period_s

    def power_w(self, now_s: float) -> float:
        """Return the power at the last refresh, in W.

        Args:
            now_s: the time.

        """
        return self._at(self._refreshed_s(now_s))

    def energy_mj(self, now_s: float) -> int:
        """Return the integral up to the last refresh, in mJ.

        Args:
            now_s: the time.

        """
        end_s = self._refreshed_s(now_s)
        times = [0.0, *(t for t, _ in self._points if 0.0 < t < end_s), end_s]
        joules = sum((b - a) * (self._at(a) + self._at(b)) / 2 for a, b in pairwise(times))
        return round(joules * 1000)

    def _refreshed_s(self, now_s: float) -> float:
        return math.floor(now_s / self._period_s + 1e-9) * self._period_s

    def _at(self, now_s: float) -> float:
        points = self._points
        if now_s <= points[0][0]:
            return points[0][1]
        for (t0, w0), (t1, w1) in pairwise(points):
            if now_s <= t1:
                return w0 + (w1 - w0) * (now_s - t0) / (t1 - t0)
        return points[-1][1]


@final
class Recording:
    """Play readings of a card back: each holds until the next.

    Args:
        readings: (seconds, watts, millijoules), in order, the first at 0 s.

    """

    def __init__(self, readings: list[tuple[float, float, int]]) -> None:
        self.readings = readings

    @classmethod
    def load(cls, path: Path) -> "Recording":
        """Read a JSON file whose `readings` is a list of [seconds, watts, millijoules].

        Args:
            path: the file.

        """
        record = json.loads(path.read_text(encoding="utf-8"))
        return cls([(t, w, mj) for t, w, mj in record["readings"]])

    def power_w(self, now_s: float) -> float:
        """Return the power of the last reading, in W.

        Args:
            now_s: the time.

        """
        return self._last(now_s)[1]

    def energy_mj(self, now_s: float) -> int:
        """Return the counter of the last reading, in mJ.

        Args:
            now_s: the time.

        """
        return self._last(now_s)[2]

    def _last(self, now_s: float) -> tuple[float, float, int]:
        return [reading for reading in self.readings if reading[0] <= now_s + 1e-9][-1]


@dataclass(slots=True)
class FakeCard:
    """Simulate a card; its fields may be changed as a test goes on.

    Args:
        uuid: the card's.
        source: its power and its counter.
        has_counter: whether it counts energy (Volta and newer), or only shows power.
        reset_s: the time at which its counter is reset, as after a driver was reloaded.
        mig: whether it is cut into slices.
        throttle_bits: as in nvmlDeviceGetCurrentClocksThrottleReasons.
        pids: processes that compute on it.
        power_limit_w: the limit that it shows, if it shows one.
        temperature_c: its temperature.
        sm_clock_mhz: its clock.

    """

    uuid: str
    source: Source
    has_counter: bool = True
    reset_s: float = math.inf
    mig: bool = False
    throttle_bits: int = 0
    pids: Collection[int] = ()
    power_limit_w: float | None = None
    temperature_c: int = 40
    sm_clock_mhz: int = 1400


@final
class FakeNvml:
    """Stand in for the module pynvml; its errors are pynvml's own.

    Args:
        clock: the time of the cards.
        cards: in NVML's order.
        driver: whether there is one.
        failing: by a call's name, the numbers, counted from 1, of its calls that fail with a lost card.

    Attributes:
        lost: set to make every call fail so, and unset to have the card back.
        calls: how often each call was made.

    """

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(
        self,
        clock: FakeClock,
        *cards: FakeCard,
        driver: bool = True,
        failing: dict[str, Collection[int]] | None = None,
    ) -> None:
        import pynvml

        self.NVMLError = pynvml.NVMLError
        self.NVMLError_NotFound: Any = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND).__class__
        self.NVMLError_NotSupported: Any = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED).__class__
        self.calls: Counts[str] = Counts()
        self.failing = failing or {}
        self.lost = False
        self._lost = pynvml.NVML_ERROR_GPU_IS_LOST
        self._no_library = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        self._clock = clock
        self._cards = cards
        self._driver = driver

    def _call(self, name: str) -> None:
        self.calls[name] += 1
        if self.lost or self.calls[name] in self.failing.get(name, ()):
            raise self.NVMLError(self._lost)

    def nvmlInit(self) -> None:
        self._call("nvmlInit")
        if not self._driver:
            raise self.NVMLError(self._no_library)

    def nvmlShutdown(self) -> None:
        self._call("nvmlShutdown")

    def nvmlSystemGetDriverVersion(self) -> str:
        self._call("nvmlSystemGetDriverVersion")
        return "580.00"

    def nvmlDeviceGetCount(self) -> int:
        self._call("nvmlDeviceGetCount")
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:
        self._call("nvmlDeviceGetHandleByIndex")
        return self._cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeCard:
        self._call("nvmlDeviceGetHandleByUUID")
        for card in self._cards:
            if card.uuid == uuid:
                return card
        raise self.NVMLError_NotFound

    def nvmlDeviceGetName(self, card: FakeCard) -> str:
        self._call("nvmlDeviceGetName")
        return "Fake card"

    def nvmlDeviceGetUUID(self, card: FakeCard) -> str:
        self._call("nvmlDeviceGetUUID")
        return card.uuid

    def nvmlDeviceGetMigMode(self, card: FakeCard) -> list[int]:
        self._call("nvmlDeviceGetMigMode")
        return [int(card.mig), int(card.mig)]

    def nvmlDeviceGetTotalEnergyConsumption(self, card: FakeCard) -> int:
        self._call("nvmlDeviceGetTotalEnergyConsumption")
        if not card.has_counter:
            raise self.NVMLError_NotSupported
        energy_mj = card.source.energy_mj(self._clock.now_s)
        return energy_mj - (card.source.energy_mj(card.reset_s) if self._clock.now_s >= card.reset_s else 0)

    def nvmlDeviceGetPowerUsage(self, card: FakeCard) -> int:
        self._call("nvmlDeviceGetPowerUsage")
        return round(card.source.power_w(self._clock.now_s) * 1000)

    def nvmlDeviceGetTemperature(self, card: FakeCard, sensor: int) -> int:
        self._call("nvmlDeviceGetTemperature")
        return card.temperature_c

    def nvmlDeviceGetClockInfo(self, card: FakeCard, which: int) -> int:
        self._call("nvmlDeviceGetClockInfo")
        return card.sm_clock_mhz

    def nvmlDeviceGetEnforcedPowerLimit(self, card: FakeCard) -> int:
        self._call("nvmlDeviceGetEnforcedPowerLimit")
        if card.power_limit_w is None:
            raise self.NVMLError_NotSupported
        return round(card.power_limit_w * 1000)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, card: FakeCard) -> int:
        self._call("nvmlDeviceGetCurrentClocksThrottleReasons")
        return card.throttle_bits

    def nvmlDeviceGetComputeRunningProcesses(self, card: FakeCard) -> list[Any]:
        self._call("nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid) for pid in card.pids]


@final
class FakeCounter(Counter):
    """Count the energy of a part that always draws the same power.

    Args:
        clock: the time of its readings.
        part: whose energy it is.
        label: how well it is known.
        power_w: the power.
        absent: why it is not there, if so.
        error: what its opening raises instead.
        counted: what it counts, if not this process's share.
        period_s: how often it moves, if that bounds its error.
        fails_when_ready: whether its start fails, on its thread.

    Attributes:
        lost: set to make its readings fail.
        closed: how often it was closed.

    """

    source = "fake"

    def __init__(
        self,
        clock: FakeClock,
        part: Literal["gpu", "cpu", "dram"] = "cpu",
        label: Literal["measured", "estimated"] = "estimated",
        power_w: float = 10.0,
        *,
        absent: str = "",
        error: Exception | None = None,
        counted: str = "",
        period_s: float | None = None,
        fails_when_ready: bool = False,
    ) -> None:
        self.part = part
        self.label = label
        self.note = "steady"
        self.period_s = period_s
        self.includes_idle = label == "measured"
        self.lost = False
        self.closed = 0
        self._clock = clock
        self._power_w = power_w
        self._absent = absent
        self._error = error
        self._counted = counted
        self._fails_when_ready = fails_when_ready

    def open(self) -> None:
        if self._absent:
            raise AbsentError(self._absent)
        if self._error is not None:
            raise self._error

    def ready(self) -> None:
        if self._fails_when_ready:
            raise AbsentError("came to nothing")

    def read(self) -> Mark:
        if self.lost:
            raise LostError("source_lost")
        return Mark(self._clock.now_s * self._power_w)

    def joules(self, begin: Mark, end: Mark) -> float:
        return end.value - begin.value

    def counted(self) -> str:
        return self._counted or super().counted()

    def close(self) -> None:
        self.closed += 1
