"""The meter: named windows, and what each part of the machine used in them."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, NamedTuple, final

import torch

from localearn.energy.codecarbon import CpuEstimate, Grid, ProcessModel, RamEstimate, grid
from localearn.energy.nvml import NvmlCounter, torch_uuid
from localearn.energy.rapl import RaplCounter
from localearn.energy.sources import AbsentError, Clock, Counter, Label, LostError, Mark, Part, idle_power_w

WINDOWS = ("setup", "compile", "train", "eval", "checkpoint", "tune")
SEAM_NOTE = "what the earlier session spent after its last checkpoint is not counted"
NO_COUNTRY = "no country given; set energy.country=POL (ISO 3166-1 alpha-3) for kg CO2e"

LOSSES = {"source_lost": "the source did not answer", "counter_reset": "the counter began anew"}
LONG_PERIODS = 50

_log = logging.getLogger(__name__)


@final
class Meter:
    """Measures energy and time in named windows.

        meter = Meter("cuda", country="POL")
        meter.open()
        with meter.window("train"):
            ...
        meter.close()
        record |= meter.report()

    Each part of the machine (gpu, cpu, dram) is measured, estimated or absent. What is absent is None and never 0, and
    energies with different labels are never added. The headline part is the one that trains: the card, or the CPU.

    device: what trains; it is synchronised before both readings of a window.
    country: ISO 3166-1 alpha-3 code of the grid for kg CO2e; None for no carbon. An unknown code raises
        `UserError` here, before anything was trained.
    sources: "auto" for the best there is, "none" to keep only durations, or counters of one's own.
    idle_s: how long idle power is measured, before and after, where a source measures it; else no time is spent. With 0
        idle power stays unknown.
    clock: stamps all readings.
    synchronize: waits for the work that the device was given; torch's own wait where None.
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
        self._pending: list[tuple[str, _Readings, _Readings]] = []  # segments that a slow source cannot yet tell
        self._durations_s: dict[str, float] = {}
        self._seams: list[dict[str, Any]] = []

    def open(self, *, tell: bool = True) -> None:
        """Start the sources, time their updates and measure idle power with the device's context alive.

        tell: whether to warn of what is absent; who opens meters in several processes says it once, see `warn`.
        Estimates fetch their model on a thread, last, so that it disturbs no idle power; the first window other than
        "setup" waits for it. Raises RuntimeError on a meter that was opened before.
        """
        if self._state != "new":
            raise RuntimeError("a meter is opened once")
        self._state = "open"
        self._synchronize()
        for part in self._parts.values():
            part.open()
        self._measure_idle("before")
        for part in self._parts.values():
            part.prefetch()
        if tell:
            self.warn([self.absence])

    @staticmethod
    def warn(absences: Iterable[str | None]) -> None:
        """Warn of what the meters of one or more processes lack; what they lack alike is said once."""
        for absence in dict.fromkeys(absences):
            if absence is not None:
                _log.warning(absence)

    @property
    def absence(self) -> str | None:
        """Say in a line why a training GPU's energy is not measured; None where it is, or where no GPU trains."""
        if self._headline.label == "absent" and self._headline.name == "gpu":
            return f"GPU energy is absent: {self._headline.note}"
        return None

    @contextmanager
    def window(self, name: str) -> Iterator[None]:
        """Count what happens inside under `name`, one of `WINDOWS`; may be entered any number of times.

        An exception inside ends the window as usual, for its joules were spent, and goes on. Raises ValueError for
        another name and RuntimeError inside another window or on a meter that is not open.
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
        """Return the seconds spent in a window so far, earlier sessions included."""
        return self._durations_s.get(name, 0.0)

    def energy_j(self, name: str) -> float | None:
        """Return the headline part's joules in a window so far, None where they are not known."""
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
        """Return a line that names each part's source, or why it has none; to be said once, when a run starts."""
        told = []
        for part in self._parts.values():
            how = f" ({part.note})" if part.label == "absent" else f" by {part.source}"
            told.append(f"{part.name} {part.label}{how}")
        return "; ".join(told)

    def report(self) -> dict[str, Any]:
        """Return `energy`, `co2e_kg` and `co2e` as they stand in a run's record, ready for JSON.

        `energy.flags` are those of the headline part's train window, which `train_j` belongs to; the other windows'
        stand with their parts. The carbon is that of `train_j`.
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
            "seams": [dict(seam) for seam in self._seams],
            "conditions": {} if counter is None else counter.conditions(),
        }
        return {"energy": energy, **_carbon(self._grid, train["energy_j"], energy["part"])}

    def state(self) -> dict[str, Any]:
        """Return what `add_earlier` takes when the run is resumed: plain numbers, strings, lists and dicts."""
        self._wait_for_sources()
        parts = {name: part.state(self._durations_s) for name, part in self._parts.items()}
        return {"durations_s": dict(self._durations_s), "parts": parts, "seams": [dict(seam) for seam in self._seams]}

    def beside(self, states: Sequence[dict[str, Any]]) -> None:
        """Add what other processes that train together with this one have spent, by their `state`, up to now.

        It takes the place of what was added so before. Joules of unlike labels are not added: they become null, with
        the flag `ranks_differ`. What two of them count, a card or a machine, counts once.
        """
        for name, part in self._parts.items():
            part.beside([state["parts"][name] for state in states])

    def lose(self, flag: str) -> None:
        """Make all joules null, with a flag: processes beside this one have spent some that nobody can tell."""
        for part in self._parts.values():
            part.lose(flag)

    def add_earlier(self, state: dict[str, Any], joules: bool = True) -> None:
        """Add an earlier session's seconds and joules, and record the seam; before or after `open`, once a session.

        joules: False where another process, whose states go `beside`, adds them.
        """
        durations_s = dict(state["durations_s"])
        for name, part in self._parts.items() if joules else ():
            part.add_earlier(state["parts"][name], durations_s)
        for name, duration_s in durations_s.items():
            self._durations_s[name] = self._durations_s.get(name, 0.0) + duration_s
        headline = state["parts"][self._headline.name]
        train = headline["windows"].get("train", {"energy_j": None, "discarded": 0})
        self._seams = [
            *(dict(seam) for seam in state["seams"]),
            {
                "resumed": datetime.now(UTC).isoformat(timespec="seconds"),
                "earlier_s": durations_s,
                "earlier_train_j": None if train["discarded"] else train["energy_j"],
                "label": headline["label"],
                "source": headline["source"],
                "note": SEAM_NOTE,
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
    """Meter every run that this thread starts in the block by what `make` returns, also runs of a command.

    So a power meter of one's own is read, a `Counter`, where localearn knows none for the machine.

    make: takes `Meter`'s first four arguments, as the run's settings have them.
    """
    token = _MAKE.set(make)
    try:
        yield
    finally:
        _MAKE.reset(token)


def make_meter(device: torch.device, country: str | None, sources: Literal["auto", "none"], idle_s: float) -> Meter:
    """Return a new meter for a run: a `Meter`, or what `metered_by` says."""
    return _MAKE.get()(device, country, sources, idle_s)


def _parts(
    device: torch.device, sources: Literal["auto", "none"] | Sequence[Counter], clock: Clock
) -> "dict[str, MeteredPart]":
    """Return the three parts with their possible sources, the best first."""
    candidates: dict[Part, list[Counter]] = {"gpu": [], "cpu": [], "dram": []}
    why_no_gpu = why = "not measured"
    if sources == "auto":
        model = ProcessModel()
        candidates["cpu"] = [RaplCounter("cpu", clock=clock), CpuEstimate(model)]
        candidates["dram"] = [RaplCounter("dram", clock=clock), RamEstimate(model, clock)]
        why_no_gpu = f"not measured: training runs on the {device.type}"
        if device.type == "cuda":
            try:
                candidates["gpu"] = [NvmlCounter(torch_uuid(device), clock=clock)]
            except AbsentError as reason:
                why_no_gpu = str(reason)
    elif not isinstance(sources, str):
        for counter in sources:
            candidates[counter.part].append(counter)
    notes: dict[Part, str] = {"gpu": why_no_gpu, "cpu": why, "dram": why}
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


class Reading(NamedTuple):
    """A mark with its time, or what went wrong instead."""

    now_s: float
    mark: Mark | LostError


_Readings = dict[Part, Reading | None]


@final
class MeteredPart:
    """Tries the candidates in turn, keeps the first that opens, and adds up what it counts.

    name: which part of the machine.
    candidates: its possible counters, the best first.
    why_none: the note of a part that has no candidate.
    clock: stamps the readings.
    """

    def __init__(self, name: Part, candidates: Sequence[Counter], why_none: str, clock: Clock) -> None:
        self.name: Part = name
        self.counter: Counter | None = None
        self.idle_w: dict[Literal["before", "after"], float | None] = {"before": None, "after": None}
        self._candidates = list(candidates)
        self._reasons = [] if candidates else [why_none]
        self._clock = clock
        self._tallies: dict[str, Tally] = {}
        self._told: set[str] = set()
        self._earlier: list[tuple[dict[str, Any], dict[str, float]]] = []
        self._beside: list[dict[str, Any]] = []
        self._unknown: str | None = None

    def open(self) -> None:
        """Open the first candidate that is there; the reasons of the others go into the note."""
        while self.counter is None and self._candidates:
            candidate = self._candidates.pop(0)
            try:
                candidate.open()
                self.counter = candidate
            except AbsentError as reason:
                self._reasons.append(str(reason))

    def prefetch(self) -> None:
        """Let a slow source begin to start on a thread."""
        if self.counter is not None:
            self.counter.prefetch()

    def ready(self) -> None:
        """Wait for a slow source. Where its start failed the part is absent: what was read meanwhile means nothing."""
        if self.counter is None:
            return
        try:
            self.counter.ready()
        except AbsentError as reason:
            self._reasons.append(str(reason))
            self.counter = None

    def close(self) -> None:
        """Release the source; what it counted stays."""
        if self.counter is not None:
            self.counter.close()

    @property
    def label(self) -> Label:
        """How well the part's energy is known."""
        return "absent" if self.counter is None else self.counter.label

    @property
    def source(self) -> str | None:
        """Who tells the part's energy."""
        return None if self.counter is None else self.counter.source

    @property
    def note(self) -> str:
        """What the reader must know: the source's own note, and why better ones are not there."""
        own = [self.counter.note] if self.counter is not None and self.counter.note else []
        return "; ".join(own + self._reasons)

    def read(self) -> Reading | None:
        """Return a reading, one with the error where the source failed, None where there is no source."""
        if self.counter is None:
            return None
        try:
            mark = self.counter.read()
        except LostError as lost:
            return Reading(self._clock.now(), lost)
        return Reading(self._clock.now(), mark)

    def add(self, window: str, begin: Reading | None, end: Reading | None) -> None:
        """Add a segment of a window, or mark it where its energy is not known."""
        if self.counter is None or begin is None or end is None:
            return
        tally = self._tallies.setdefault(window, Tally())
        duration_s = end.now_s - begin.now_s
        tally.flags |= self.counter.look()
        try:
            energy_j = self.counter.joules(_held(begin), _held(end))
        except LostError as lost:
            tally.discard(str(lost), duration_s)
            self._tell(window, lost)
            return
        power_w = max(energy_j / duration_s if duration_s > 0 else 0.0, self.counter.power_w() or 0.0)
        tally.add(energy_j, duration_s, max(power_w, self.idle_w["before"] or 0.0), self.counter.period_s)

    def _tell(self, window: str, lost: LostError) -> None:
        """Say what was lost, the first time that it is: a driver that went away is away at every epoch."""
        flag = str(lost)
        if flag in self._told:
            return
        self._told.add(flag)
        what = LOSSES.get(flag, flag)
        cause = "" if lost.__cause__ is None else f" ({lost.__cause__})"
        _log.warning(
            "%s energy: %s%s in a %s window; the joules of such a window are null, with the flag %s, and never a part "
            "of the sum; the run goes on",
            *(self.name, what, cause, window, flag),
        )

    def add_earlier(self, part: dict[str, Any], durations_s: dict[str, float]) -> None:
        """Take the state of an earlier session, and how long each of its windows was, measured or not."""
        self._earlier.append((part, durations_s))

    def beside(self, parts: Sequence[dict[str, Any]]) -> None:
        """Take the states of this part in processes that train together with this one, in place of earlier ones.

        What several of them count, such as a machine's packages, is added once.
        """
        seen = {None if self.counter is None else self.counter.counted()}
        self._beside = []
        for part in parts:
            if part["counted"] not in seen or part["counted"] is None:
                self._beside.append(part)
            seen.add(part["counted"])

    def lose(self, flag: str) -> None:
        """Give every window's energy up: what other processes have spent since they last told is not known."""
        self._unknown = flag

    def total(self, window: str) -> "Tally":
        """Return a window's tally over all sessions, and over all processes that train together.

        Joules with another label are not added: that window's energy is then not known, and says `label_changed`, or
        `ranks_differ`.
        """
        total = self._own_total(window)
        for part in self._beside:
            if part["label"] != self.label:
                total.discard("ranks_differ", 0.0)
            elif window in part["windows"]:
                total = total.plus(Tally.from_state(part["windows"][window]))
        if self._unknown is not None:
            total.discard(self._unknown, 0.0)
        return total

    def _own_total(self, window: str) -> "Tally":
        total = Tally().plus(self._tallies.get(window, Tally()))
        for part, durations_s in self._earlier:
            if window not in durations_s:
                continue
            if part["label"] == self.label and window in part["windows"]:
                total = Tally.from_state(part["windows"][window]).plus(total)
            else:
                foreign = Tally()
                foreign.discard("label_changed", durations_s[window])
                total = foreign.plus(total)
        return total

    @property
    def _mean_idle_w(self) -> float | None:
        known = [power_w for power_w in self.idle_w.values() if power_w is not None]
        return sum(known) / len(known) if known else None

    def report(self, durations_s: dict[str, float]) -> dict[str, Any]:
        """Return the part's record; `durations_s` names the windows and stands in for those of an absent part."""
        absent = self.counter is None
        windows = {}
        for name, duration_s in durations_s.items():
            tally = Tally(duration_s=duration_s) if absent else self.total(name)
            windows[name] = tally.report(self._mean_idle_w)
            if self._beside:  # whose seconds went by beside these
                windows[name]["duration_s"] = duration_s
        idle_known = any(power_w is not None for power_w in self.idle_w.values())
        return {
            "label": self.label,
            "source": self.source,
            "note": self.note,
            "idle_w": dict(self.idle_w) if idle_known else None,
            "windows": windows,
        }

    def state(self, durations_s: dict[str, float]) -> dict[str, Any]:
        """Return what `add_earlier` takes in the session that goes on."""
        names = [] if self.counter is None else durations_s
        windows = {name: self.total(name).state(self._mean_idle_w) for name in names}
        counted = None if self.counter is None else self.counter.counted()
        return {"label": self.label, "source": self.source, "counted": counted, "windows": windows}


def _held(reading: Reading) -> Mark:
    """Return a reading's mark; raise `LostError` where it has none."""
    if isinstance(reading.mark, LostError):
        raise reading.mark
    return reading.mark


@dataclass(slots=True)
class Tally:
    """Sums over the segments of a window, a segment being one time that it was entered.

    A counter that moves every T seconds is up to T behind when it is read, so each end of a segment may be wrong by
    P * T, with P the segment's power. Those errors are independent, so n segments are uncertain by

        u = sqrt( sum over segments of 2 (P T)^2 )      = P T sqrt(2 n) where P stays the same

    One window is long enough when it lasts LONG_PERIODS = 50 periods (u is then 2.8 % of its energy). Many segments are
    together long enough when they reach that same share: their seconds D >= 50 T sqrt(n). Else they are `too_short`.

    A segment whose energy is not known (a reset, a lost driver) is discarded, and then the window's energy is not known
    either: the sum of the others would pass for the whole.

    idle_j, idle_s: the idle energy of the seconds before a resume, None where it is not known, and those seconds.
    """

    energy_j: float = 0.0
    duration_s: float = 0.0
    segments: int = 0
    discarded: int = 0
    variance_j2: float = 0.0
    period_s: float | None = None
    idle_j: float | None = 0.0
    idle_s: float = 0.0
    flags: set[str] = field(default_factory=set)

    def add(self, energy_j: float, duration_s: float, power_w: float, period_s: float | None) -> None:
        """Add a segment; `power_w` is the power that its ends may be wrong by, a `period_s` of None bounds no error."""
        self.energy_j += energy_j
        self.duration_s += duration_s
        self.segments += 1
        if period_s is not None:
            self.variance_j2 += 2 * (power_w * period_s) ** 2
            self.period_s = max(period_s, self.period_s or 0.0)

    def discard(self, flag: str, duration_s: float) -> None:
        """Count a segment whose energy is not known, and why."""
        self.duration_s += duration_s
        self.segments += 1
        self.discarded += 1
        self.flags.add(flag)

    def plus(self, other: "Tally") -> "Tally":
        """Return the tally of both."""
        periods = [period for period in (self.period_s, other.period_s) if period is not None]
        return Tally(
            self.energy_j + other.energy_j,
            self.duration_s + other.duration_s,
            self.segments + other.segments,
            self.discarded + other.discarded,
            self.variance_j2 + other.variance_j2,
            max(periods, default=None),
            None if self.idle_j is None or other.idle_j is None else self.idle_j + other.idle_j,
            self.idle_s + other.idle_s,
            self.flags | other.flags,
        )

    @property
    def known_j(self) -> float | None:
        """The energy, None where a segment of it is not known or there was none."""
        return self.energy_j if self.segments and not self.discarded else None

    def _idle_j(self, idle_w: float | None) -> float | None:
        """Return the idle energy of all seconds: what is known of the earlier ones, `idle_w` for the others."""
        if idle_w is None or self.idle_j is None:
            return None
        return self.idle_j + idle_w * (self.duration_s - self.idle_s)

    def report(self, idle_w: float | None) -> dict[str, Any]:
        """Return the record of the window; net energy is gross - `idle_w` * seconds."""
        known_j, idle_j, flags = self.known_j, self._idle_j(idle_w), set(self.flags)
        if self.period_s is not None and self.duration_s < LONG_PERIODS * self.period_s * math.sqrt(self.segments):
            flags.add("too_short")
        return {
            "energy_j": known_j,
            "net_j": None if known_j is None or idle_j is None else known_j - idle_j,
            "duration_s": self.duration_s,
            "uncertainty_j": None if known_j is None or self.period_s is None else math.sqrt(self.variance_j2),
            "flags": sorted(flags),
            "segments": self.segments,
            "discarded": self.discarded,
        }

    def state(self, idle_w: float | None) -> dict[str, Any]:
        """Return plain numbers, strings and lists that `from_state` takes; `idle_w` is that of the seconds so far."""
        return {
            "energy_j": self.energy_j,
            "duration_s": self.duration_s,
            "segments": self.segments,
            "discarded": self.discarded,
            "variance_j2": self.variance_j2,
            "period_s": self.period_s,
            "idle_j": self._idle_j(idle_w),
            "idle_s": self.duration_s,
            "flags": sorted(self.flags),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Tally":
        """Return the tally that `state` describes."""
        return cls(**{**state, "flags": set(state["flags"])})
