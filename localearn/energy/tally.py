"""The sums of a window: joules, seconds, uncertainty and flags over all times that it was entered."""

import math
from dataclasses import dataclass, field
from typing import Any

LONG_PERIODS = 50


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

    Args:
        energy_j: joules of the segments that are known.
        duration_s: seconds of all segments.
        segments: how many there were, discarded ones included.
        discarded: how many of them have no known energy.
        variance_j2: the sum under the root above.
        period_s: T, the longest that was seen; None where no error is bounded so.
        idle_j: the idle energy of the seconds before a resume, None where it is not known.
        idle_s: those seconds.
        flags: what readers are to know of the segments.

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
        """Add a segment whose energy is known.

        Args:
            energy_j: its joules.
            duration_s: its seconds.
            power_w: the power that its ends may be wrong by.
            period_s: the counter's update period; None bounds no error.

        """
        self.energy_j += energy_j
        self.duration_s += duration_s
        self.segments += 1
        if period_s is not None:
            self.variance_j2 += 2 * (power_w * period_s) ** 2
            self.period_s = max(period_s, self.period_s or 0.0)

    def discard(self, flag: str, duration_s: float) -> None:
        """Add a segment whose energy is not known.

        Args:
            flag: why it is not.
            duration_s: its seconds.

        """
        self.duration_s += duration_s
        self.segments += 1
        self.discarded += 1
        self.flags.add(flag)

    def plus(self, other: "Tally") -> "Tally":
        """Return the tally of both.

        Args:
            other: the other one.

        """
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
        """The energy in joules, None where a segment of it is not known or there was none."""
        return self.energy_j if self.segments and not self.discarded else None

    def _idle_j(self, idle_w: float | None) -> float | None:
        """Return the idle energy of all seconds: what is known of the earlier ones, `idle_w` for the others."""
        if idle_w is None or self.idle_j is None:
            return None
        return self.idle_j + idle_w * (self.duration_s - self.idle_s)

    def report(self, idle_w: float | None) -> dict[str, Any]:
        """Return the record of the window, ready for JSON; net energy is gross - `idle_w` * seconds.

        Args:
            idle_w: the part's idle power, None where it is not known.

        """
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
        """Return plain numbers, strings and lists that `from_state` takes.

        Args:
            idle_w: the idle power of the seconds so far, None where it is not known.

        """
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
        """Return the tally that a state describes.

        Args:
            state: what `state` returned.

        """
        return cls(**{**state, "flags": set(state["flags"])})
