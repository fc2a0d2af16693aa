"""Parameters of which a few run by default."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the parameters, or tuples of them, all but the quick ones marked slow.

    What they prove together is seen by `-m slow`, as in CI.
    """
    values = list(values)
    assert all(value in values for value in quick), f"{quick} are to be among {values}"
    return [value if value in quick else _slow(value) for value in values]


def _slow(value: Any) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
