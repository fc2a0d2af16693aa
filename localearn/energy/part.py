"""One metered part of the machine: its source, and the joules that the source counts by window."""

import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, final

from localearn.energy.sources import AbsentError, Clock, Counter, Label, LostError, Mark, Part
from localearn.energy.tally import Tally

LOSSES = {"source_lost": "the source did not answer", "counter_reset": "the counter was reset"}
_log = logging.getLogger(__name__)


class Reading(NamedTuple):
    """A mark with its time, or what went wrong instead.

    Args:
        now_s: the clock after the reading, in seconds.
        mark: the counter's mark, or the error of a source that was lost.

    """

    now_s: float
    mark: Mark | LostError


@final
class MeteredPart:
    """One part of the machine: the first of its candidate counters that opens, and the joules that it counts.

    Args:
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
        self._warned: set[str] = set()
        self._earlier: list[tuple[dict[str, Any], dict[str, float]]] = []
        self._ranks: list[dict[str, Any]] = []
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
        """The name of the part's source, None where it has none."""
        return None if self.counter is None else self.counter.source

    @property
    def note(self) -> str:
        """The source's own note, and why better ones are not there."""
        notes = [self.counter.note] if self.counter is not None and self.counter.note else []
        return "; ".join(notes + self._reasons)

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
        """Add a segment of a window, or mark it where its energy is not known.

        Args:
            window: the window's name.
            begin: the reading at its beginning, as `read` returned it.
            end: the reading at its end.

        """
        if self.counter is None or begin is None or end is None:
            return
        tally = self._tallies.setdefault(window, Tally())
        duration_s = end.now_s - begin.now_s
        tally.flags |= self.counter.sample_conditions()
        try:
            energy_j = self.counter.joules(_mark_of(begin), _mark_of(end))
        except LostError as lost:
            tally.discard(str(lost), duration_s)
            self._warn(window, lost)
            return
        power_w = max(energy_j / duration_s if duration_s > 0 else 0.0, self.counter.power_w() or 0.0)
        tally.add(energy_j, duration_s, max(power_w, self.idle_w["before"] or 0.0), self.counter.period_s)

    def _warn(self, window: str, lost: LostError) -> None:
        """Warn of what was lost, the first time that it is: a driver that went away is away at every epoch."""
        flag = str(lost)
        if flag in self._warned:
            return
        self._warned.add(flag)
        what = LOSSES.get(flag, flag)
        cause = "" if lost.__cause__ is None else f" ({lost.__cause__})"
        _log.warning(
            "%s energy: %s%s in a %s window; the joules of such a window are null, with the flag %s, and never a part "
            "of the sum; the run goes on",
            *(self.name, what, cause, window, flag),
        )

    def add_earlier(self, part: dict[str, Any], durations_s: dict[str, float]) -> None:
        """Add the state of an earlier session.

        Args:
            part: what `state` returned then.
            durations_s: the seconds of each of its windows, measured or not.

        """
        self._earlier.append((part, durations_s))

    def add_ranks(self, parts: Sequence[dict[str, Any]]) -> None:
        """Add the states of this part in processes that train together with this one, in place of earlier ones.

        What several of them count, such as a machine's packages, is added once.

        Args:
            parts: what `state` returned in each.

        """
        seen = {None if self.counter is None else self.counter.counted()}
        self._ranks = []
        for part in parts:
            if part["counted"] not in seen or part["counted"] is None:
                self._ranks.append(part)
            seen.add(part["counted"])

    def invalidate(self, flag: str) -> None:
        """Make every window's energy unknown, since other processes have spent some that they did not report.

        Args:
            flag: the reason, which each window carries.

        """
        self._unknown = flag

    def total(self, window: str) -> "Tally":
        """Return a window's tally over all sessions, and over all processes that train together.

        Joules with another label are not added: that window's energy is then not known, and is flagged `label_changed`,
        or `ranks_differ`.

        Args:
            window: the window's name.

        """
        total = self._own_total(window)
        for part in self._ranks:
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
                unknown = Tally()
                unknown.discard("label_changed", durations_s[window])
                total = unknown.plus(total)
        return total

    @property
    def _mean_idle_w(self) -> float | None:
        known = [power_w for power_w in self.idle_w.values() if power_w is not None]
        return sum(known) / len(known) if known else None

    def report(self, durations_s: dict[str, float]) -> dict[str, Any]:
        """Return the part's record, ready for JSON.

        Args:
            durations_s: the seconds of each window; an absent part has these.

        """
        absent = self.counter is None
        windows = {}
        for name, duration_s in durations_s.items():
            tally = Tally(duration_s=duration_s) if absent else self.total(name)
            windows[name] = tally.report(self._mean_idle_w)
            if self._ranks:  # whose seconds passed at the same time
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
        """Return what `add_earlier` takes in the session that resumes this one.

        Args:
            durations_s: the seconds of each window.

        """
        names = [] if self.counter is None else durations_s
        windows = {name: self.total(name).state(self._mean_idle_w) for name in names}
        counted = None if self.counter is None else self.counter.counted()
        return {"label": self.label, "source": self.source, "counted": counted, "windows": windows}


def _mark_of(reading: Reading) -> Mark:
    """Return a reading's mark; raise `LostError` where it has none."""
    if isinstance(reading.mark, LostError):
        raise reading.mark
    return reading.mark
