"""CPU and memory, estimated by CodeCarbon's model of this process.

CodeCarbon's offline tracker in process mode charges a process with

    CPU:  package power (TDP) / logical CPUs, for every second of CPU time that the process used
    RAM:  a power guessed from the process's size, 5 W a memory module, for every second that passed

Both are linear in a clock. The tracker's own tasks read those clocks at a cost of 4 ms a window (more on a machine with
many processes), see CPU time in steps of 10 ms and sample once a second on a thread, which spoils short windows. So
the tracker is queried once for its model of this machine and never started: no thread, no file, no network; the clocks
are read here, in microseconds and without steps. A test holds both ways to the same joules.

Kilograms of CO2 equivalent are joules times a country's mean grid intensity, of CodeCarbon's table: an estimate always.
"""

import difflib
import importlib.metadata
import importlib.util
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from localearn.energy.sources import AbsentError, Clock, Counter, Mark
from localearn.errors import UserError
from localearn.moved import former_names

START_LIMIT_S = 30.0
RAM_INTERVAL_S = 1.0  # to weigh the process costs a walk over /proc, and its size changes slowly
JOULES_PER_KWH = 3.6e6
NEAREST = 3
GRID_FILE = Path("data/private_infra/global_energy_mix.json")


@final
class ProcessModel:
    """CodeCarbon's model of this machine, fetched on a thread.

    It takes well over a second, most of it in a child process that identifies the processor and occupies a core. So it
    runs during the set-up and is waited for before anything that is compared is timed.

    Args:
        load: returns CodeCarbon's CPU and RAM of this machine, and its version; `codecarbon_model` where None.
        start_limit_s: how long `wait` waits for it, in seconds.

    """

    def __init__(
        self, load: Callable[[], tuple[Any, Any, str]] | None = None, start_limit_s: float = START_LIMIT_S
    ) -> None:
        self._load = load or codecarbon_model
        self._start_limit_s = start_limit_s
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._cpu: Any = None
        self._ram: Any = None
        self._version = ""

    def start(self) -> None:
        """Begin to fetch the model; returns at once. A second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._fetch, name="localearn-codecarbon", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return when the model is there.

        Raises:
            AbsentError: where CodeCarbon failed, or took too long.

        """
        self.start()
        assert self._thread is not None
        self._thread.join(self._start_limit_s)
        if self._thread.is_alive():
            raise AbsentError(f"CodeCarbon did not start within {self._start_limit_s:g} s")
        if self._error is not None:
            raise AbsentError(f"CodeCarbon: {type(self._error).__name__}: {self._error}") from self._error

    @property
    def core_w(self) -> float:
        """Power of one logical CPU that is busy, in watts."""
        return self._cpu._tdp / self._cpu._cpu_count

    @property
    def ram_w(self) -> float:
        """Power of the memory that the process holds now, in watts."""
        return self._ram.total_power().W

    def note(self, part: Literal["cpu", "dram"]) -> str:
        """Return a line on how a part's estimate comes about.

        Args:
            part: "cpu" or "dram".

        """
        tracker = f"CodeCarbon {self._version}, offline, process mode"
        if part == "dram":
            return f"{tracker}: a guess by the process's size, 5 W a memory module"
        cores, model = self._cpu._cpu_count, self._cpu.get_model()
        return f"{tracker}: {self._cpu._tdp:g} W for {cores} logical CPUs ({model}), times this process's CPU time"

    def _fetch(self) -> None:
        try:
            self._cpu, self._ram, self._version = self._load()
            if not (self.core_w > 0 and self.ram_w > 0):
                raise ValueError(f"a model of {self.core_w} W a CPU and {self.ram_w} W of memory")
        # Whatever goes wrong in there, from a missing package to a processor it cannot place, costs the joules and
        # not the training; the reason is recorded.
        except Exception as error:
            self._error = error


def codecarbon_model() -> tuple[Any, Any, str]:
    """Return CodeCarbon's CPU and RAM of this machine, and its version; its tracker is not started."""
    import codecarbon
    from codecarbon.external.hardware import CPU
    from codecarbon.external.ram import RAM

    logger = logging.getLogger("codecarbon")
    logger.setLevel(logging.CRITICAL)  # it logs before it has read its own log_level
    tracker = codecarbon.OfflineEmissionsTracker(
        tracking_mode="process",
        force_mode_cpu_load=True,  # the process's share, also where it could read the whole machine's RAPL
        output_methods=[],
        gpu_ids=[],
        log_level="critical",
        allow_multiple_runs=True,
    )
    tracker.get_detected_hardware()
    cpu = next(part for part in tracker._hardware if isinstance(part, CPU))
    ram = next(part for part in tracker._hardware if isinstance(part, RAM))
    return cpu, ram, importlib.metadata.version("codecarbon")


@final
class CpuEstimate(Counter):
    """The process's share of the CPU: the CPU time of all its threads, not of its children, at the model's power.

    A process that idles uses no CPU time and is charged nothing, so the estimate holds no idle power to subtract.

    Args:
        model: CodeCarbon's of this machine.

    """

    part = "cpu"
    source = "codecarbon"
    label = "estimated"
    includes_idle = False

    def __init__(self, model: ProcessModel) -> None:
        self.note = ""
        self.period_s = None
        self._model = model

    def open(self) -> None:
        """Do nothing yet: see `prefetch`."""

    def prefetch(self) -> None:
        """Begin to fetch the model on a thread."""
        self._model.start()

    def ready(self) -> None:
        """Wait for the model.

        Raises:
            AbsentError: where CodeCarbon failed.

        """
        self._model.wait()
        self.note = self._model.note("cpu")

    def read(self) -> Mark:
        """Return the CPU seconds so far."""
        return Mark(time.process_time())

    def joules(self, begin: Mark, end: Mark) -> float:
        """Return the energy between two marks, in joules; waits for the model.

        Args:
            begin: what `read` returned first.
            end: what it returned later.

        Raises:
            AbsentError: where CodeCarbon failed.

        """
        self._model.wait()
        return (end.value - begin.value) * self._model.core_w

    def close(self) -> None:
        """Nothing to release: the tracker was never started."""


@final
class RamEstimate(Counter):
    """The memory's power as guessed from this process's size, times the seconds that passed.

    It grows alike in work and in idleness; no idle power is subtracted, for the guess knows none.

    Args:
        model: CodeCarbon's of this machine.
        clock: whose seconds count.

    """

    part = "dram"
    source = "codecarbon"
    label = "estimated"
    includes_idle = False

    def __init__(self, model: ProcessModel, clock: Clock | None = None) -> None:
        self.note = ""
        self.period_s = None
        self._model = model
        self._clock = clock or Clock()
        self._ram_w = 0.0
        self._sampled_s: float | None = None

    def open(self) -> None:
        """Do nothing yet: see `prefetch`."""

    def prefetch(self) -> None:
        """Begin to fetch the model on a thread."""
        self._model.start()

    def ready(self) -> None:
        """Wait for the model.

        Raises:
            AbsentError: where CodeCarbon failed.

        """
        self._model.wait()
        self.note = self._model.note("dram")

    def read(self) -> Mark:
        """Return the clock, in seconds."""
        return Mark(self._clock.now())

    def joules(self, begin: Mark, end: Mark) -> float:
        """Return the energy between two marks, in joules; waits for the model.

        Args:
            begin: what `read` returned first.
            end: what it returned later.

        Raises:
            AbsentError: where CodeCarbon failed.

        """
        self._model.wait()
        now_s = self._clock.now()
        if self._sampled_s is None or now_s - self._sampled_s >= RAM_INTERVAL_S:
            self._ram_w, self._sampled_s = self._model.ram_w, now_s
        return (end.value - begin.value) * self._ram_w

    def close(self) -> None:
        """Nothing to release: the tracker was never started."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A country's grid.

    Args:
        country: its ISO 3166-1 alpha-3 code.
        intensity_kg_per_kwh: kg CO2e per kWh.
        year: of that figure, None where the table has none.

    """

    country: str
    intensity_kg_per_kwh: float
    year: int | None

    def kg(self, energy_j: float) -> float:
        """Return the kg CO2e of an energy.

        Args:
            energy_j: joules.

        """
        return energy_j / JOULES_PER_KWH * self.intensity_kg_per_kwh


def grid(country: str) -> Grid:
    """Return the grid of a country from CodeCarbon's own table, without importing CodeCarbon.

    CodeCarbon silently takes the world's average for a code that it does not know; here that is an error.

    Args:
        country: ISO 3166-1 alpha-3 code, in any case.

    Raises:
        UserError: for an unknown code, with the nearest one or the code of the country so named.

    """
    table = _table()
    code = country.strip().upper()
    entry = table.get(code, {})
    if entry.get("carbon_intensity") is None:
        raise UserError(
            f"energy.country={country!r} is no country code (ISO 3166-1 alpha-3, such as POL) "
            f"with a known grid intensity{_nearest(code, table)}"
        )
    return Grid(code, entry["carbon_intensity"] / 1000, entry.get("year"))


def _nearest(code: str, table: dict[str, dict[str, Any]]) -> str:
    """Return `; did you mean 'POL' (Poland) ...?`: the country so named, or else so begun, then the nearest codes."""
    names = {iso: str(row.get("country_name", "")) for iso, row in table.items()}
    if not code:
        return ""
    named = [iso for iso, name in names.items() if name.upper() == code]
    begun = [iso for iso, name in names.items() if name.upper().startswith(code)]
    near = named or [*begun, *difflib.get_close_matches(code, table, n=NEAREST, cutoff=0.3)]
    candidates = [f"{iso!r} ({names[iso]})" for iso in dict.fromkeys(near)][:NEAREST]
    return f"; did you mean {' or '.join(candidates)}?" if candidates else ""


def _table() -> dict[str, dict[str, Any]]:
    package = importlib.util.find_spec("codecarbon")
    if package is None or package.origin is None:
        raise UserError("energy.country needs the package codecarbon, which knows the grids: pip install codecarbon")
    path = Path(package.origin).parent / GRID_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"energy.country: CodeCarbon's table of grids cannot be read ({error})") from error


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
