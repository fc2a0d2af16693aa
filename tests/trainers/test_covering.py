"""By default the suites run on the kinds of tests/trainers/covering.json: it has every suite, and loses no branch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import covering
from tests.helpers.conformance import COVERING

ROOT = Path(__file__).parents[2]


def test_every_suite_is_measured_on_kinds_that_it_serves():
    suites = covering.suites()
    assert suites.keys() == COVERING.keys(), "python -m tests.helpers.covering writes the file anew"
    for name, suite in suites.items():
        assert set(COVERING[name]) <= set(suite._served()), name


def test_the_smallest_set_takes_all():
    found = {"mlp": {("rule", 1, 2)}, "cnn": {("rule", 1, 2), ("rule", 1, 3)}, "gcn": {("rule", 4, 5)}}
    assert covering.smallest(found) == ("cnn", "gcn")
    assert covering.lost(found, ("mlp", "gcn")) == ["rule:1"] and covering.lost(found, ("cnn", "gcn")) == []


@pytest.mark.slow
def test_no_line_or_branch_is_lost_by_default():
    """In a process of its own, for this one may be measured itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-m", "tests.helpers.covering", "check"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=290)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-2000:]
