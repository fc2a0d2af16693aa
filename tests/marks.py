"""Parameters of which a few run by default."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the parameters, all but the quick ones marked slow; what they prove together, `-m slow` and CI prove."""
    values = list(values)
    assert all(value in values for value in quick), f"{quick} are to be among {values}"
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
