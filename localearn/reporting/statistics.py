"""Means, paired ratios and their 95 % intervals; pure functions of numbers.

Intervals are Student's: mean ± t(0.975, n - 1) s / sqrt(n). A ratio is the geometric mean of the ratios of pairs, with
the interval of the mean log-ratio, exponentiated: it treats a rule that halves and one that doubles alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        mean: the mean.
        low: the interval's lower end, None where one number alone gives none.
        high: its upper end.
        n: the numbers that it is over.

    """

    mean: float
    low: float | None
    high: float | None
    n: int

    def excludes(self, value: float) -> bool:
        """Return whether the interval exists and does not hold a value.

        Args:
            value: say 1 of a ratio.

        """
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def t_quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t distribution.

    Args:
        probability: between 0 and 1.
        degrees: of freedom.

    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def mean_interval(values: Sequence[float]) -> Estimate:
    """Return the mean of the values and its 95 % interval.

    Args:
        values: one at least.

    Raises:
        ValueError: when there is no value.

    """
    n = len(values)
    if n == 0:
        raise ValueError("the mean of no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile((1 + CONFIDENCE) / 2, n - 1) * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half, n)


def difference_interval(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Return the mean of `values[i] - baseline[i]` and its interval over the pairs.

    Args:
        values: one of each pair.
        baseline: the other of each pair.

    Raises:
        ValueError: when the lengths differ or there is no pair.

    """
    return mean_interval([value - base for value, base in zip(values, baseline, strict=True)])


def ratio_interval(values: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Return the geometric mean of `values[i] / baseline[i]` and its interval over the pairs.

    Args:
        values: one of each pair, positive.
        baseline: the other of each pair, positive.

    Raises:
        ValueError: when the lengths differ, there is no pair, or a number is not positive.

    """
    if min(*values, *baseline, 1.0) <= 0:
        raise ValueError("a ratio of numbers that are not positive")
    logs = mean_interval([math.log(value / base) for value, base in zip(values, baseline, strict=True)])
    low, high = (None if bound is None else math.exp(bound) for bound in (logs.low, logs.high))
    return Estimate(math.exp(logs.mean), low, high, logs.n)


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive values.

    Args:
        values: one at least.

    Raises:
        ValueError: when there is no value, or one is not positive.

    """
    if not values or min(values) <= 0:
        raise ValueError("the geometric mean of no values, or of values that are not positive")
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other beats, from the cheapest on.

    A point is beaten by one that costs no more and gains no less, and is not its equal in both.

    Args:
        points: (cost, gain) each.

    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1] or points[index] == points[front[-1]]:
            front.append(index)
    return front
