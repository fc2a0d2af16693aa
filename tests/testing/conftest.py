"""How a test of the suite runs one of its tests on a rule."""

import pytest

from localearn.testing import RuleConformance


@pytest.fixture
def suite_of():
    """Return a function that gives the suite of a rule, with these claims."""
    return lambda rule, **claims: type("Suite", (RuleConformance,), {"make": lambda _, net: rule(net), **claims})()


@pytest.fixture
def run():
    """Return a function that runs one test of a suite, on a kind of net and at a precision where it asks for them."""

    def on(suite, name, kind="mlp", precision="fp32"):
        check, given = getattr(suite, name), {"kind": kind, "precision": precision}
        code = check.__func__.__code__
        check(**{argument: given[argument] for argument in code.co_varnames[1 : code.co_argcount] if argument in given})

    return on
