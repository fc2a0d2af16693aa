"""Parameters of which a few run by default."""

import functools
import os
from collections.abc import Iterable
from typing import Any

import pytest

from localearn import Unsupported, cli
from localearn.benching.plan import known_rules
from localearn.testing import toy
from localearn.training.building import build_rule

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals, pipes or accounts of a POSIX system")


@functools.cache
def rules_of(kind: str) -> list[str]:
    """Return the rules that serve a kind of net of the conformance suite's, as their configurations have them."""
    served = []
    for name in known_rules():
        try:
            build_rule(cli.compose([f"algo={name}"])[0].algo, toy(kind).net(), name)
        except Unsupported:  # which the README's tables hold it to
            continue
        served.append(name)
    return served


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the parameters, or tuples of them, all but the quick ones marked slow.

    What they prove together is seen by `-m slow`, as in CI.
    """
    values = list(values)
    assert all(value in values for value in quick), f"{quick} are to be among {values}"
    return [value if value in quick else _slow(value) for value in values]


def _slow(value: Any) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
