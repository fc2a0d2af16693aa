"""CPU packages and DRAM, measured by the processor's own counters (RAPL) as Linux shows them."""

import threading
from pathlib import Path
from typing import Literal, final

from localearn.energy.sources import AbsentError, Clock, Counter, LostError, Mark, Ticker, machine

POWERCAP = Path("/sys/class/powercap")
MAX_ZONE_W = 2000.0  # more than any package draws; a wrap that would mean more is a reset
PERIOD_LIMIT_S = 0.02  # the counters move about once a millisecond; ten times that is time enough to see it


@final
class RaplCounter(Counter):
    """All packages, or all DRAM, of the machine: other processes' share and idle power included.

    Each zone z counts microjoules c_z (`energy_uj`), which wrap at r_z (`max_energy_range_uj`), after about twenty
    minutes under load. The energy between two readings is

        E = sum_z (c_z,end - c_z,begin + w_z r_z) / 10^6 J,    w_z the number of wraps

    A thread reads the zones far more often than they wrap, so no wrap is missed however long a window lasts.

    Args:
        part: "cpu" for the package zones, "dram" for the memory zones.
        root: the powercap folder.
        clock: stamps the readings.

    """

    source = "rapl"
    label = "measured"
    includes_idle = True

    def __init__(self, part: Literal["cpu", "dram"], root: Path = POWERCAP, clock: Clock | None = None) -> None:
        self.part = part
        self.note = ""
        self.period_s = None
        self._root = root
        self._clock = clock or Clock()
        self._zones: list[_Zone] = []
        self._lock = threading.Lock()
        self._ticker: Ticker | None = None

    def counted(self) -> str:
        """Return the machine's name, whose packages or memory are counted whole."""
        return f"{self.part} of {machine()}"

    def open(self) -> None:
        """Find the zones and take their first reading.

        Raises:
            AbsentError: where none may be read.

        """
        prefix = "package" if self.part == "cpu" else "dram"
        try:
            # `intel-rapl-mmio` repeats the packages and `psys` contains them; either would count them twice.
            folders = [p for p in sorted(self._root.glob("intel-rapl:*")) if _text(p / "name").startswith(prefix)]
            self._zones = [_Zone(folder, self._clock) for folder in folders]
            if not self._zones:
                raise AbsentError(f"no RAPL {prefix} counter under {self._root}")
            self.period_s = self._update_period_s()
        except PermissionError as error:
            raise AbsentError(f"RAPL: {error.filename} may be read by root only") from error
        except (OSError, ValueError) as error:
            raise AbsentError(f"RAPL: {error}") from error
        self.note = f"RAPL, {len(self._zones)} {prefix} zone(s); the whole machine's, not this process's alone"
        shortest_s = min(zone.range_j for zone in self._zones) / MAX_ZONE_W
        self._ticker = Ticker(self._poll, shortest_s / 2, "localearn-rapl")

    def read(self) -> Mark:
        """Return the joules since `open`, over all zones.

        Raises:
            LostError: where a zone cannot be read.

        """
        with self._lock:
            try:
                for zone in self._zones:
                    zone.update()
            except (OSError, ValueError) as error:
                raise LostError("source_lost") from error
            return Mark(sum(zone.energy_j for zone in self._zones), sum(zone.resets for zone in self._zones))

    def joules(self, begin: Mark, end: Mark) -> float:
        """Return the energy between two marks, in joules.

        Args:
            begin: what `read` returned first.
            end: what it returned later.

        Raises:
            LostError: where a zone was reset between them.

        """
        if begin.life != end.life:
            raise LostError("counter_reset")
        return end.value - begin.value

    def close(self) -> None:
        """Stop the thread that polls the zones."""
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None

    def _poll(self) -> None:
        try:
            self.read()
        except LostError:
            return  # the window's own reading meets the same error and marks the window

    def _update_period_s(self) -> float:
        """Return the mean time between two moves of the first zone, or the whole wait where it moved too rarely."""
        zone, moves = self._zones[0], []
        start_s = now_s = self._clock.now()
        raw = zone.raw_uj()
        while now_s - start_s < PERIOD_LIMIT_S and len(moves) < 10:
            self._clock.sleep(PERIOD_LIMIT_S / 200)
            now_s, last, raw = self._clock.now(), raw, zone.raw_uj()
            if raw != last:
                moves.append(now_s)
        return (moves[-1] - moves[0]) / (len(moves) - 1) if len(moves) > 2 else PERIOD_LIMIT_S


@final
class _Zone:
    """One powercap zone, its wraps undone."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.energy_j = 0.0
        self.resets = 0
        self.range_j = int(_text(folder / "max_energy_range_uj")) / 1e6
        self._file = folder / "energy_uj"
        self._clock = clock
        self._last_uj, self._last_s = self.raw_uj(), clock.now()

    def raw_uj(self) -> int:
        return int(_text(self._file))

    def update(self) -> None:
        raw_uj, now_s = self.raw_uj(), self._clock.now()
        delta_j = (raw_uj - self._last_uj) / 1e6
        if delta_j < 0:
            delta_j += self.range_j
            if not 0 <= delta_j <= MAX_ZONE_W * (now_s - self._last_s):
                self.resets += 1
                delta_j = 0.0
        self.energy_j += delta_j
        self._last_uj, self._last_s = raw_uj, now_s


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
