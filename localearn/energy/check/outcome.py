"""What a check expected, what it measured, and its verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["passed", "failed", "not run"]
Figures = Mapping[str, float | list[str]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check's result, a row of the page.

    part: whose energy it is about. expectation: what must hold, in words, the tolerance included.
    figures: what was measured, with units in the names. reason: why it failed or was not run.
    """

    check: str
    part: Literal["gpu", "cpu"]
    expectation: str
    verdict: Verdict
    figures: Figures = field(default_factory=dict)
    tolerance: float | None = None
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """Return the outcome ready for JSON."""
        return {
            "check": self.check,
            "part": self.part,
            "expectation": self.expectation,
            "verdict": self.verdict,
            "tolerance": self.tolerance,
            "figures": dict(self.figures),
            "reason": self.reason,
        }


def difference(one: float, other: float) -> float:
    """Return how far two figures lie apart, as a share of their mean; infinite where there is nothing to share."""
    mean = (abs(one) + abs(other)) / 2
    return abs(one - other) / mean if mean else math.inf
