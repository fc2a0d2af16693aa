"""The meter: named windows, and what each part of the machine used in them."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, final

import torch

from localearn.energy.codecarbon import CpuEstimate, Grid, ProcessModel, RamEstimate, grid
from localearn.energy.nvml import NvmlCounter, torch_uuid
from localearn.energy.part import MeteredPart, Reading
from localearn.energy.rapl import RaplCounter
from localearn.energy.sources import AbsentError, Clock, Counter, Part, idle_power_w
from localearn.energy.tally import Tally
from localearn.moved import Renamed, former_names

_log = logging.getLogger(__name__)

WINDOWS = ("setup", "compile", "train", "eval", "checkpoint", "tune")
RESUME_NOTE = "what the earlier session spent after its last checkpoint is not counted"
NO_COUNTRY = "no country given; set energy.country=POL (ISO 3166-1 alpha-3) for kg CO2e"


@final
class Meter:
    """Measure energy and time in named windows.

    Each part of the machine (gpu, cpu, dram) is measured, estimated or absent. What is absent is None and never 0, and
    energies with different labels are never added. The headline part is the one that trains: the GPU, or the CPU.

    Of each window the gross energy E is what the source counted, and, where idle power P_idle was measured, before and
    after, the net energy is

        E_net = E - P_idle t    (joules, t the window's seconds)

    The uncertainty of E is that of the counter's update period, see `Tally`.

    Args:
        device: the device that trains; it is synchronised before both readings of a window.
        country: ISO 3166-1 alpha-3 code of the grid for kg CO2e; None for no carbon.
        sources: "auto" for the best that the machine has, "none" for durations alone, or counters of your own.
        idle_s: seconds for which idle power is measured, before and after, where a source measures it; else no time is
            spent. With 0 idle power stays unknown.
        clock: stamps all readings.
        synchronize: waits for the work that the device was given; torch's own wait where None.

    Raises:
        UserError: for an unknown country, before anything was trained.

    Example:
        >>> import torch
        >>> from localearn.energy import Meter
        >>> x = torch.randn(512, 512)
        >>> with Meter("cpu", country="POL") as meter:
        ...     for epoch in range(3):
        ...         with meter.window("train"):
        ...             x = torch.tanh(x @ x)
        ...         with meter.window("eval"):
        ...             loss = x.square().mean().item()
        >>> report = meter.report()
        >>> train = report["energy"]["parts"]["cpu"]["windows"]["train"]
        >>> train["segments"]
        3
        >>> report["energy"]["label"] in ("measured", "estimated", "absent")
        True
        >>> (report["energy"]["train_j"] is None) == (report["co2e_kg"] is None)
        True

    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        country: str | None = None,
        sources: Literal["auto", "none"] | Sequence[Counter] = "auto",
        idle_s: float = 1.0,
        *,
        clock: Clock | None = None,
        synchronize: Callable[[], None] | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._grid = None if country is None else grid(country)
        self._clock = clock or Clock()
        self._synchronize = synchronize or partial(_synchronize, self._device)
        self._idle_s = idle_s
        self._parts = _parts(self._device, sources, self._clock)
        self._headline = self._parts["cpu" if self._device.type == "cpu" else "gpu"]
        self._state: Literal["new", "open", "closed"] = "new"
        self._active: str | None = None
        self._ready = False
        self._pending: list[
            tuple[str, _Readings, _Readings]
        ] = []  # segments whose joules a slow source cannot give yet
        self._durations_s: dict[str, float] = {}
        self._resume_points: list[dict[str, Any]] = []

    def open(self, *, warn: bool = True, tell: bool | None = None) -> None:
        """Start the sources, time their updates and measure idle power with the device's context alive.

        Estimates fetch their model on a thread, last, so that it disturbs no idle power; the first window other than
        "setup" waits for it.

        Args:
            warn: whether to warn of what is absent; a launcher that opens meters in several processes warns once, see
                `warn`.
            tell: deprecated; use `warn`.

        Raises:
            RuntimeError: on a meter that was opened before.

        """
        if self._state != "new":
            raise RuntimeError("a meter is opened once")
        self._state = "open"
        try:
            self._synchronize()
            for part in self._parts.values():
                part.open()
            self._measure_idle("before")
            for part in self._parts.values():
                part.prefetch()
        except BaseException:
            self._state = "closed"
            for part in self._parts.values():  # those that were opened have threads
                part.close()
            raise
        if tell is not None:
            warnings.warn("Meter.open(tell=) is deprecated: use warn=", FutureWarning, stacklevel=2)
            warn = tell
        if warn:
            self.warn([self.absence])

    def __enter__(self) -> Self:
        """Open the meter: `with Meter("cuda") as meter, meter.window("train"): ...`."""
        self.open()
        return self

    def __exit__(self, *raised: object) -> None:
        """Close the meter; its figures stay."""
        self.close()

    @staticmethod
    def warn(absences: Iterable[str | None]) -> None:
        """Warn of what the meters of one or more processes lack, once for what they lack alike.

        Args:
            absences: each meter's `absence`.

        """
        for absence in dict.fromkeys(absences):
            if absence is not None:
                _log.warning(absence)

    @property
    def absence(self) -> str | None:
        """Why a training GPU's energy is not measured, in a line; None where it is, or where no GPU trains."""
        if self._headline.label == "absent" and self._headline.name == "gpu":
            return f"GPU energy is absent: {self._headline.note}"
        return None

    @contextmanager
    def window(self, name: str) -> Iterator[None]:
        """Count what happens in the block under a name; may be entered any number of times.

        An exception in the block ends the window as usual, for its joules were spent, and is raised again.

        Args:
            name: one of `WINDOWS`.

        Raises:
            ValueError: for another name.
            RuntimeError: inside another window, or on a meter that is not open.

        """
        if name not in WINDOWS:
            raise ValueError(f"no window is named {name!r}; there are {', '.join(WINDOWS)}")
        if self._state != "open":
            raise RuntimeError(f"window {name!r} on a meter that is {self._state}, not open")
        if self._active is not None:
            raise RuntimeError(f"window {name!r} inside window {self._active!r}: their joules would count twice")
        if name != "setup":
            self._wait_for_sources()
        self._synchronize()
        parts = list(self._parts.values())
        begin: _Readings = {part.name: part.read() for part in reversed(parts)}
        begin_s = self._clock.now()
        self._active = name
        try:
            yield
        finally:
            try:
                self._synchronize()
            finally:  # the device's error is that of the work inside; the readings are taken all the same
                end_s = self._clock.now()
                end: _Readings = {part.name: part.read() for part in parts}
                self._active = None
                self._durations_s[name] = self._durations_s.get(name, 0.0) + end_s - begin_s
                self._pending.append((name, begin, end))
                if self._ready:
                    self._add_pending()

    def duration_s(self, name: str) -> float:
        """Return the seconds spent in a window so far, earlier sessions included.

        Args:
            name: one of `WINDOWS`.

        """
        return self._durations_s.get(name, 0.0)

    def energy_j(self, name: str) -> float | None:
        """Return the headline part's joules in a window so far, None where they are not known.

        Args:
            name: one of `WINDOWS`.

        """
        self._wait_for_sources()
        return None if self._headline.counter is None else self._headline.total(name).known_j

    def close(self) -> None:
        """Measure idle power again and stop the sources. Harmless on a meter that was closed or never opened."""
        if self._state != "open":
            self._state = "closed"
            return
        self._state = "closed"
        try:
            if self._durations_s:
                self._wait_for_sources()
                self._measure_idle("after")
        finally:
            for part in self._parts.values():
                part.close()

    def describe(self) -> str:
        """Return a line that names each part's source, or the reason why it has none.

        Example:
            >>> Meter("cpu", sources="none").describe()
            'gpu absent (not measured); cpu absent (not measured); dram absent (not measured)'

        """
        parts = []
        for part in self._parts.values():
            source = f" ({part.note})" if part.label == "absent" else f" by {part.source}"
            parts.append(f"{part.name} {part.label}{source}")
        return "; ".join(parts)

    def report(self) -> dict[str, Any]:
        """Return the fields `energy`, `co2e_kg` and `co2e` of a run's record, ready for JSON.

        `energy.flags` are those of the headline part's train window, which `train_j` belongs to; the other windows'
        are with their parts. The carbon is that of `train_j`.
        """
        self._wait_for_sources()
        parts = {name: part.report(self._durations_s) for name, part in self._parts.items()}
        headline = parts[self._headline.name]
        train = headline["windows"].get("train") or Tally().report(None)
        present = headline["label"] != "absent"
        counter = self._headline.counter
        energy = {
            "train_j": train["energy_j"],
            "train_net_j": train["net_j"],
            "source": headline["source"],
            "label": headline["label"],
            "part": self._headline.name if present else None,
            "train_uncertainty_j": train["uncertainty_j"],
            "parts": parts,
            "durations_s": dict(self._durations_s),
            "flags": train["flags"],
            "seams": [dict(point) for point in self._resume_points],
            "conditions": {} if counter is None else counter.conditions(),
        }
        return {"energy": energy, **_carbon(self._grid, train["energy_j"], energy["part"])}

    def state(self) -> dict[str, Any]:
        """Return what `add_earlier` takes when the run is resumed: plain numbers, strings, lists and dicts."""
        self._wait_for_sources()
        parts = {name: part.state(self._durations_s) for name, part in self._parts.items()}
        return {
            "durations_s": dict(self._durations_s),
            "parts": parts,
            "seams": [dict(point) for point in self._resume_points],
        }

    def add_ranks(self, states: Sequence[dict[str, Any]]) -> None:
        """Add what other processes of a joint training have spent up to now, in place of what was added so.

        Joules of unlike labels are not added: they become null, with the flag `ranks_differ`. What two of them count, a
        card or a machine, counts once.

        Args:
            states: the `state` of each other process's meter.

        """
        for name, part in self._parts.items():
            part.add_ranks([state["parts"][name] for state in states])

    def beside(self, states: Sequence[dict[str, Any]]) -> None:
        """Call `add_ranks`; deprecated, and gone in the next release."""
        warnings.warn("Meter.beside is deprecated: call add_ranks", FutureWarning, stacklevel=2)
        self.add_ranks(states)

    def invalidate(self, flag: str) -> None:
        """Make all joules null: other processes that train together with this one have spent some that are not known.

        Args:
            flag: the reason, which each window carries.

        """
        for part in self._parts.values():
            part.invalidate(flag)

    lose = Renamed("invalidate")

    def add_earlier(self, state: dict[str, Any], joules: bool = True) -> None:
        """Add an earlier session's seconds and joules, and record where it ended.

        Once a session, before or after `open`.

        Args:
            state: the earlier session's `state`.
            joules: False where another process adds them, by the states that it passes to `add_ranks`.

        """
        durations_s = dict(state["durations_s"])
        for name, part in self._parts.items() if joules else ():
            part.add_earlier(state["parts"][name], durations_s)
        for name, duration_s in durations_s.items():
            self._durations_s[name] = self._durations_s.get(name, 0.0) + duration_s
        headline = state["parts"][self._headline.name]
        train = headline["windows"].get("train", {"energy_j": None, "discarded": 0})
        self._resume_points = [
            *(dict(point) for point in state["seams"]),
            {
                "resumed": datetime.now(UTC).isoformat(timespec="seconds"),
                "earlier_s": durations_s,
                "earlier_train_j": None if train["discarded"] else train["energy_j"],
                "label": headline["label"],
                "source": headline["source"],
                "note": RESUME_NOTE,
            },
        ]

    def _wait_for_sources(self) -> None:
        if self._ready or self._state == "new":
            return
        for part in self._parts.values():
            part.ready()
        self._ready = True
        self._add_pending()

    def _add_pending(self) -> None:
        for name, begin, end in self._pending:
            for part in self._parts.values():
                part.add(name, begin[part.name], end[part.name])
        self._pending.clear()

    def _measure_idle(self, when: Literal["before", "after"]) -> None:
        counters = [p.counter for p in self._parts.values() if p.counter is not None and p.counter.includes_idle]
        if not counters or not self._idle_s:
            return
        for name, power_w in idle_power_w(counters, self._idle_s, self._clock).items():
            self._parts[name].idle_w[when] = power_w


MakeMeter = Callable[[torch.device, str | None, Literal["auto", "none"], float], Meter]
_MAKE: ContextVar[MakeMeter] = ContextVar("make_meter", default=Meter)


@contextmanager
def metered_by(make: MakeMeter) -> Iterator[None]:
    """Meter every run that this thread starts in the block, a command's too, by a meter of your own making.

    So a power meter of your own is read, a `Counter`, on a machine for which localearn knows none.

    Args:
        make: takes `Meter`'s first four arguments, as the run's settings have them, and returns a `Meter`.

    """
    token = _MAKE.set(make)
    try:
        yield
    finally:
        _MAKE.reset(token)


def make_meter(device: torch.device, country: str | None, sources: Literal["auto", "none"], idle_s: float) -> Meter:
    """Return a new meter for a run: a `Meter`, or the one that `metered_by` sets.

    Args:
        device: as of `Meter`.
        country: as of `Meter`.
        sources: as of `Meter`.
        idle_s: as of `Meter`.

    """
    return _MAKE.get()(device, country, sources, idle_s)


def _parts(
    device: torch.device, sources: Literal["auto", "none"] | Sequence[Counter], clock: Clock
) -> "dict[str, MeteredPart]":
    """Return the three parts with their possible sources, the best first."""
    candidates: dict[Part, list[Counter]] = {"gpu": [], "cpu": [], "dram": []}
    no_gpu = reason_absent = "not measured"
    if sources == "auto":
        model = ProcessModel()
        candidates["cpu"] = [RaplCounter("cpu", clock=clock), CpuEstimate(model)]
        candidates["dram"] = [RaplCounter("dram", clock=clock), RamEstimate(model, clock)]
        no_gpu = f"not measured: training runs on the {device.type}"
        if device.type == "cuda":
            try:
                candidates["gpu"] = [NvmlCounter(torch_uuid(device), clock=clock)]
            except AbsentError as reason:
                no_gpu = str(reason)
    elif not isinstance(sources, str):
        for counter in sources:
            candidates[counter.part].append(counter)
    notes: dict[Part, str] = {"gpu": no_gpu, "cpu": reason_absent, "dram": reason_absent}
    return {name: MeteredPart(name, candidates[name], notes[name], clock) for name in candidates}


def _synchronize(device: torch.device) -> None:
    """Wait for all work that a device was given; a CPU has ended it already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _carbon(where: Grid | None, train_j: float | None, part: str | None) -> dict[str, Any]:
    """Return the record's `co2e_kg` and `co2e`."""
    if where is None or train_j is None:
        note = NO_COUNTRY if where is None else "the training's energy is not known"
        country = None if where is None else where.country
        intensity = None if where is None else where.intensity_kg_per_kwh
        label, kg = "absent", None
    else:
        year = "" if where.year is None else f" of {where.year}"
        note = f"the {part}'s joules in training, at the country's mean intensity{year} (CodeCarbon's table)"
        country, intensity = where.country, where.intensity_kg_per_kwh
        label, kg = "estimated", where.kg(train_j)
    co2e = {"label": label, "country": country, "intensity_kg_per_kwh": intensity, "note": note}
    return {"co2e_kg": kg, "co2e": co2e}


_Readings = dict[Part, Reading | None]


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
