"""The README's table of rules is a list of suites: each rule, as its configuration has it, on the nets of its row.

A "yes" in the table makes the suite run on that kind of net, where the rule learns a task; without it, the suite asks
that the rule refuse the net. So a cell cannot be changed alone.
"""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from localearn import Unsupported, cli
from localearn.testing import KINDS, RuleConformance, toy
from localearn.training.building import CONF, build_rule, rule_class

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COLUMNS = {"MLP": ("mlp",), "CNN": ("cnn",), "GNN": ("gcn", "sage", "gat"), "regression": ("values",)}
CELLS = {"yes": (), "not GAT": ("gat",)}  # what is refused of a column's kinds; "no" would be all of them


def rows() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return of each rule in the table its family and the kinds that each column says it serves."""
    lines = README[README.index("| rule | family |") :].split("\n\n")[0].splitlines()
    header, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    table = {}
    for cells in body:
        row = dict(zip(header, cells, strict=True))
        table[row["rule"].strip("`")] = {
            column: tuple(kind for kind in kinds if row[column] != "no" and kind not in CELLS[row[column]])
            for column, kinds in COLUMNS.items()
        }
    return table


TABLE = rows()

# What the toys' few rows and narrow blocks want otherwise than the published recipes.
OVERRIDES = {"pepita": ("algo.scale=0.2",), "forward_gradient": ("algo.tangents=8",)}
CLAIMS: dict[str, dict[str, Any]] = {
    "cafo": {"trains_blocks": False, "judged_by": "errors", "learns_to": 0.8},
    "forward_forward": {"steps": 150},
    "forward_gradient": {"draws_noise": True, "steps": 300, "lr": 0.01, "learns_to": 0.7},
    "likelihood_ratio": {"draws_noise": True, "steps": 150, "lr": 0.02},
    "pepita": {"steps": 400, "lr": 0.01},
}


@functools.cache
def options_of(rule: str) -> Any:
    return cli.compose([f"algo={rule}", *OVERRIDES.get(rule, ())])[0].algo


def suite(rule: str) -> type[RuleConformance]:
    served = [kind for column in TABLE[rule].values() for kind in column]
    kinds = tuple(kind for kind in served if kind in KINDS)
    tasks = ("classes", "values") if "values" in served else ("classes",)
    make = lambda self, net: build_rule(options_of(rule), net, rule)  # noqa: E731 - a method is wanted
    name = f"Test{rule_class(options_of(rule)).__name__}"
    return type(name, (RuleConformance,), {"kinds": kinds, "tasks": tasks, "make": make, **CLAIMS.get(rule, {})})


for _rule in TABLE:
    _suite = suite(_rule)
    globals()[_suite.__name__] = _suite


def test_the_table_has_every_rule_that_there_is_a_configuration_of():
    assert sorted(TABLE) == sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))


def test_every_row_is_a_suite_that_is_collected():
    suites = {type(s.make(toy("mlp").net())).__name__: s for s in (suite(rule)() for rule in TABLE)}
    assert len(suites) == len(TABLE)
    assert all(issubclass(globals()[f"Test{name}"], RuleConformance) for name in suites)
    assert {kind for s in suites.values() for kind in s.kinds} == set(KINDS)


REFUSED = [(rule, kind) for rule, row in TABLE.items() for kind in KINDS if not any(kind in s for s in row.values())]


@pytest.mark.parametrize(("rule", "kind"), REFUSED)
def test_a_refusal_says_what_would_work(rule, kind):
    torch.manual_seed(0)
    served = [other for column, kinds in COLUMNS.items() if kind in kinds for other in TABLE[rule][column]]
    with pytest.raises(Unsupported) as refusal:
        suite(rule)().make(toy(kind).net())
    said = str(refusal.value)
    assert type(toy(kind).net()).__name__ in said
    assert served and all(re.search(rf"\b{other}\b", said) for other in served), said
