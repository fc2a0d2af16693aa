"""The smallest sets of nets and tasks on which each conformance suite runs every line and branch of its rule.

    python -m tests.helpers.covering          # measures, and writes tests/trainers/covering.json
    python -m tests.helpers.covering check    # measures, and says of each suite what its set in that file leaves out

A set is measured by coverage.py: the arcs between lines of `localearn.trainers` that the rule's gradients or solution,
at every precision, and its scores take on each kind that it serves. No other check of the suite takes an arc that these
do not. Of the smallest sets that together take all, the first counts, in the order of `localearn.testing.KINDS`.
"""

import importlib
import itertools
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import coverage

from localearn import trainers
from localearn.testing import RuleConformance

TESTS = Path(__file__).parents[1] / "trainers"
MEASURED = TESTS / "covering.json"
RULES = str(Path(trainers.__file__).parent / "*")

Arcs = set[tuple[str, int, int]]  # file, from line, to line


def suites() -> dict[str, RuleConformance]:
    """Return every suite of the tests of rules, by its class's name."""
    found = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        name = ".".join(("tests", "trainers", *path.relative_to(TESTS).with_suffix("").parts))
        for made in vars(importlib.import_module(name)).values():
            is_suite = isinstance(made, type) and issubclass(made, RuleConformance) and made.__module__ == name
            if is_suite and made.__name__.startswith("Test"):
                suite = found.setdefault(made.__name__, made())
                assert type(suite) is made, f"two suites are called {made.__name__}"
    return found


def taken(suite: RuleConformance) -> dict[str, Arcs]:
    """Return the arcs that a suite's rule takes on each kind that it serves, in their order."""
    counter = coverage.Coverage(data_file=None, branch=True, include=[RULES], config_file=False, messages=False)
    suite.runs_on = None
    kinds = suite._served()
    counter.start()
    try:
        for kind in kinds:
            counter.switch_context(kind)
            for precision in suite.precisions:
                suite.test_fills_gradients_or_solves(kind, precision)
            suite.test_scores_and_leaves_modes_alone(kind)
    finally:
        counter.stop()
    data, found = counter.get_data(), {}
    for kind in kinds:
        data.set_query_context(kind)
        found[kind] = {(file, *arc) for file in data.measured_files() for arc in data.arcs(file) or ()}
    return found


def smallest(found: Mapping[str, Arcs]) -> tuple[str, ...]:
    """Return the first of the smallest sets of kinds that together take every arc."""
    whole = set().union(*found.values())
    for size in range(1, len(found) + 1):
        for kinds in itertools.combinations(found, size):
            if set().union(*(found[kind] for kind in kinds)) == whole:
                return kinds
    return ()


def lost(found: Mapping[str, Arcs], kinds: tuple[str, ...]) -> list[str]:
    """Return where arcs begin that none of these kinds takes, and others do."""
    rest = set().union(*found.values()) - set().union(*(found[kind] for kind in kinds))
    return sorted({f"{Path(file).name}:{abs(line)}" for file, line, _ in rest})


def main(words: list[str]) -> int:
    """Write the sets, or check those that are written; return the exit status."""
    if words == ["check"]:
        written, wrong = json.loads(MEASURED.read_text(encoding="utf-8")), 0
        for name, suite in suites().items():
            missed = lost(taken(suite), tuple(written[name]))
            wrong += bool(missed)
            if missed:
                print(f"{name}: {', '.join(written[name])} do not take {', '.join(missed)}")
        return int(wrong > 0)
    sets = {name: smallest(taken(suite)) for name, suite in suites().items()}
    lines = (f"  {json.dumps(name)}: {json.dumps(sets[name])}" for name in sorted(sets))
    MEASURED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
