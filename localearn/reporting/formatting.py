"""Numbers as a person reads them: a unit for a column, digits for an interval."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from localearn.reporting.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit on a page.

    Attributes:
        symbol: as it is written.
        factor: one of the unit in the record's unit.

    """

    symbol: str
    factor: float


PERCENT = (Unit("%", 0.01),)
SECOND = (Unit("ms", 1e-3), Unit("s", 1.0))
JOULE = (Unit("nJ", 1e-9), Unit("µJ", 1e-6), Unit("mJ", 1e-3), Unit("J", 1.0), Unit("kJ", 1e3), Unit("MJ", 1e6))
BYTE = (Unit("B", 1.0), Unit("KiB", 2.0**10), Unit("MiB", 2.0**20), Unit("GiB", 2.0**30))
RATE = (Unit("samples/s", 1.0), Unit("k samples/s", 1e3), Unit("M samples/s", 1e6))
MASS = (Unit("µg", 1e-9), Unit("mg", 1e-6), Unit("g", 1e-3), Unit("kg", 1.0))
COUNT = (Unit("", 1.0),)


def choose_unit(units: tuple[Unit, ...], values: Iterable[float]) -> Unit:
    """Return the unit for a column: the largest in which its middle value (geometrically) is still 1 or more.

    Args:
        units: to choose from.
        values: the column's, in the record's unit.

    """
    logs = [math.log(abs(value)) for value in values if value]
    middle = math.exp(math.fsum(logs) / len(logs)) if logs else 0.0
    return next((unit for unit in reversed(units) if middle >= unit.factor), units[0])


def plain(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits, without an exponent between 1e-4 and 1e7.

    Args:
        value: the number.
        digits: significant ones.

    """
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if not -4 <= exponent < 7:
        return _minus(f"{value:.{digits - 1}e}")
    return _minus(f"{value:.{max(0, digits - 1 - exponent)}f}")


def with_interval(estimate: Estimate, unit: Unit) -> str:
    """Return `mean ± half-width unit`, the half-width with two significant digits; the mean alone where there is none.

    No more than six significant digits are written, however narrow the interval.

    Args:
        estimate: in the record's unit.
        unit: the page's.

    """
    mean, symbol = estimate.mean / unit.factor, f" {unit.symbol}" if unit.symbol else ""
    if estimate.high is None:
        return _whole_or_plain(mean) + symbol
    half = estimate.high / unit.factor - mean
    if half <= 1e-9 * abs(mean):
        return f"{_whole_or_plain(mean)} ± 0{symbol}"
    decimals = _decimals(half, largest=max(0, 5 - _exponent(mean)))
    width = f"{half:.{decimals}f}"
    if not any(digit in "123456789" for digit in width):
        width = f"<{10.0**-decimals:.{decimals}f}"
    return f"{_minus(f'{mean:.{decimals}f}')} ± {width}{symbol}"


def ratio(estimate: Estimate) -> str:
    """Return `×mean [low, high]`, with digits enough to distinguish the bounds.

    Args:
        estimate: a ratio.

    """
    if estimate.low is None or estimate.high is None:
        return f"×{plain(estimate.mean, 3)}"
    width = estimate.high - estimate.low
    if width <= 1e-9 * estimate.mean:
        return f"×{plain(estimate.mean, 3)} ± 0"
    decimals = max(_decimals(width, largest=4 if estimate.mean < 10 else 2), 0 if estimate.mean >= 100 else 2)
    mean, low, high = (f"{value:.{decimals}f}" for value in (estimate.mean, estimate.low, estimate.high))
    return f"×{mean} [{low}, {high}]"


def points(estimate: Estimate) -> str:
    """Return a difference of accuracies in percentage points, `+mean [low, high] points`.

    Args:
        estimate: a difference of fractions.

    """
    mean, low, high = (
        None if value is None else _minus(f"{100 * value:+.2f}")
        for value in (estimate.mean, estimate.low, estimate.high)
    )
    if low is None or low == high:
        return f"{mean} points" if low is None else f"{mean} ± 0 points"
    return f"{mean} [{low}, {high}] points"


def difference(estimate: Estimate) -> str:
    """Return a difference in the numbers' own unit, `+mean [low, high]`, its digits enough to distinguish the bounds.

    Args:
        estimate: a difference.

    """
    if estimate.low is None or estimate.high is None:
        return _signed(estimate.mean, plain(abs(estimate.mean), 3))
    width = estimate.high - estimate.low
    size = max(abs(estimate.low), abs(estimate.high))
    if width <= 1e-9 * size:
        return f"{_signed(estimate.mean, plain(abs(estimate.mean), 3))} ± 0"
    decimals = _decimals(width, largest=max(0, 5 - _exponent(size)))
    mean, low, high = (
        _signed(value, f"{abs(value):.{decimals}f}") for value in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean} [{low}, {high}]"


def mean_and_range(values: Sequence[float]) -> str:
    """Return a mean with the least and the most, a decimal each.

    Args:
        values: one at least.

    """
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _signed(value: float, size: str) -> str:
    """Return a number with its sign, none before a zero."""
    if not any(digit in "123456789" for digit in size.split("e")[0]):
        return size
    return f"{'+' if value > 0 else '−'}{size}"


def _whole_or_plain(value: float) -> str:
    return _minus(f"{value:.0f}") if value.is_integer() and abs(value) < 1e7 else plain(value)


def _decimals(width: float, largest: int) -> int:
    """Return the decimals that show two significant digits of `width`, 0 to `largest`."""
    return min(max(0, 1 - _exponent(width)), largest)


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _minus(text: str) -> str:
    """Return the text with a true minus sign, none before a zero."""
    if text.startswith("-") and not any(digit in "123456789" for digit in text.split("e")[0]):
        return text[1:]
    return text.replace("-", "−") if "e" not in text else text
