"""The README's tables of rules are a list of suites: each rule, as its configuration has it, on the nets of its row.

A "yes" in a table makes the suite run on that kind of net, or for that kind of task, where the rule learns a task; with
a "no" the suite asks that the rule refuse it. So a cell cannot be changed alone.
"""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from localearn import Unsupported, cli
from localearn.files import read_yaml
from localearn.nets import Net
from localearn.testing import KINDS, TASKS, toy
from localearn.training.building import CONF, build_rule, rule_class
from tests.helpers import denoisers, physical
from tests.helpers.conformance import Suite

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
NETS = {
    "MLP": ("mlp", "deepfm"),
    "CNN": ("cnn",),
    "ResNet": ("resnet", "mobilenet"),
    "GNN": ("gcn", "sage", "gat"),
    "transformer": ("transformer",),
    "recurrent": ("recurrent",),
    "ViT, mixer": ("vit", "mixer"),
}
OF_TASKS = {
    "classes": ("classes",),
    "values": ("values",),
    "multi-label": ("multilabel",),
    "language": ("tokens",),
    "autoencoding": ("autoencoding",),
}
OWN = {
    "noprop": {"MLP": denoisers.rows, "CNN": denoisers.images},
    "model_free": {"MLP": physical.rows},
}  # toys of nets that no other rule has, by column
NET_TABLE = "| rule | family |"


def refused(cell: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return which of a column's kinds a cell refuses: none by "yes", all by "no" and "its own", one by "not GAT"."""
    if cell in ("yes", "no", "its own"):
        return () if cell == "yes" else kinds
    named = tuple(cell.removeprefix("not ").lower().split(", "))
    assert cell.startswith("not ") and set(named) < set(kinds), cell
    return named


def rows(start: str, columns: dict[str, tuple[str, ...]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return of each rule in a table what each column says it serves."""
    lines = README[README.index(start) :].split("\n\n")[0].splitlines()
    header, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    table = {}
    for cells in body:
        row = dict(zip(header, cells, strict=True))
        table[row["rule"].strip("`")] = {
            column: tuple(kind for kind in kinds if kind not in refused(row[column], kinds))
            for column, kinds in columns.items()
        }
        own = {column for column, cell in row.items() if cell == "its own"}
        assert start != NET_TABLE or own == set(OWN.get(row["rule"].strip("`"), ())), row["rule"]
    return table


TABLE = rows(NET_TABLE, NETS)
TASK_TABLE = rows("| rule | classes |", OF_TASKS)

# What the toys' few rows and narrow blocks want otherwise than the published recipes; on a kind of net alone.
OVERRIDES = {"pepita": ("algo.scale=0.2",)}
BY_NET = {
    # A gated unit's state is less than 1, so their squares never reach a threshold of one for each.
    ("forward_forward", "Recurrent"): ("algo.threshold=8",),
    # What residual blocks add to is signed: its units are not on or off, and need no peers to be turned on again.
    **{("forward_forward", net): ("algo.peer_normalization=0",) for net in ("Transformer", "ViT", "Mixer")},
    ("forward_forward", "ResNet"): ("algo.peer_normalization=0", "algo.goodness=mean"),  # the latter as on all maps
    ("forward_forward", "Net"): ("algo.goodness=mean",),
    ("forward_forward", "DeepFM"): ("algo.goodness=mean",),  # of embeddings that are drawn too small for a sum
}
CLAIMS: dict[str, dict[str, Any]] = {
    "cafo": {
        "trains_blocks": False,
        "judged_by": "errors",
        "learns_to": 0.8,
        "by_kind": {
            "recurrent": {"learns_to": 0.9},
            "tokens": {"judged_by": "loss"},
            "multilabel": {"learns_to": 0.95},
            "deepfm": {"learns_to": 0.95},
        },
    },
    "counter_current": {
        "by_kind": {
            "resnet": {"steps": 200},
            "multilabel": {"learns_to": 0.7},
            "autoencoding": {"steps": 400, "lr": 0.01},
        },
    },
    "feedback_alignment": {"by_kind": {"tokens": {"steps": 150}}},
    "forward_forward": {
        "steps": 150,
        "by_kind": {
            "recurrent": {"steps": 250},
            "transformer": {"lr": 0.01, "steps": 300, "learns_to": 0.6},
            "tokens": {"draws_noise": True},  # which positions carry the true token
            "vit": {"lr": 0.01},
            "mixer": {"learns_to": 0.6},
            "resnet": {"lr": 0.01},
            "mobilenet": {"steps": 60},
        },
    },
    "local_loss": {"by_kind": {"gat": {"steps": 120}}},
    "likelihood_ratio": {
        "draws_noise": True,
        "steps": 150,
        "lr": 0.02,
        "by_kind": {
            **{kind: {"steps": 50} for kind in ("transformer", "recurrent", "tokens", "vit", "mixer", "multilabel")},
            "resnet": {"steps": 60, "learns_to": 0.8},
            "mobilenet": {"steps": 30, "lr": 0.06},
        },
    },
    "model_free": {"judged_by": "errors", "steps": 150, "lr": 0.01},
    "noprop": {"draws_noise": True, "judged_by": "errors", "steps": 150, "lr": 0.01},
    "shallow": {
        "trains_blocks": False,
        "judged_by": "errors",
        "learns_to": 0.95,
        "by_kind": {kind: {"steps": 300, "lr": 0.02} for kind in ("recurrent", "deepfm", "mobilenet")},
    },
    "product_feedback_alignment": {"by_kind": {"vit": {"lr": 0.01}, "mixer": {"lr": 0.01}}},
    "pepita": {"steps": 400, "lr": 0.01},
}


@functools.cache
def options_of(rule: str, net: str = "", recipe: str = "dense") -> Any:
    asked = (f"algo={rule}", f"recipe={recipe}", *OVERRIDES.get(rule, ()), *BY_NET.get((rule, net), ()))
    return cli.compose(asked)[0].algo


def recipe_for(rule: str, net: Net) -> str:
    """Return the recipe of values where the rule has one and the net is for such, as a run without classes takes it."""
    return (
        "values"
        if not net.task.exclusive and "values" in read_yaml(CONF / "algo" / f"{rule}.yaml").get("recipes", {})
        else "dense"
    )


def suite(rule: str) -> type[Suite]:
    kinds = tuple(kind for column in TABLE[rule].values() for kind in column)
    tasks = tuple(task for column in TASK_TABLE[rule].values() for task in column)
    make = lambda self, net: build_rule(  # noqa: E731 - a method
        options_of(rule, type(net).__name__, recipe_for(rule, net)), net, rule
    )
    name = f"Test{rule_class(options_of(rule)).__name__}"
    own = {f"{rule}_{column.lower()}": made for column, made in OWN.get(rule, {}).items()}
    claims = {"own": own, **CLAIMS.get(rule, {})}
    return type(name, (Suite,), {"kinds": kinds, "tasks": tasks, "make": make, **claims})


for _rule in TABLE:
    _suite = suite(_rule)
    globals()[_suite.__name__] = _suite


def test_the_tables_have_every_rule_that_there_is_a_configuration_of():
    assert sorted(TABLE) == sorted(TASK_TABLE) == sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))


def test_every_row_is_a_suite_that_is_collected():
    suites = {
        type(s.make(s._toy(next(iter(s._served()))).net())).__name__: s for s in (suite(rule)() for rule in TABLE)
    }
    assert len(suites) == len(TABLE)
    assert all(issubclass(globals()[f"Test{name}"], Suite) for name in suites)
    assert {kind for s in suites.values() for kind in s.kinds} == set(KINDS)
    assert {task for s in suites.values() for task in s.tasks} == set(TASKS)


REFUSED = [(rule, kind) for rule, row in TABLE.items() for kind in KINDS if not any(kind in s for s in row.values())]


@pytest.mark.parametrize(("rule", "kind"), REFUSED)
def test_a_refusal_says_what_would_work(rule, kind):
    """It names the net, and others of its column that are served; or, where there are none, a rule that serves it."""
    torch.manual_seed(0)
    served = [other for column, kinds in NETS.items() if kind in kinds for other in TABLE[rule][column]]
    with pytest.raises(Unsupported) as refusal:
        suite(rule)().make(toy(kind).net())
    said = str(refusal.value)
    assert type(toy(kind).net()).__name__ in said
    assert all(re.search(rf"\b{other}\b", said) for other in served), said
    instead = re.findall(r"algo=(\w+)", said)
    assert served or any(kind in column for other in instead for column in TABLE[other].values()), said


NO_TASK = [
    (rule, task) for rule, row in TASK_TABLE.items() for task in list(TASKS) if not any(task in s for s in row.values())
]


@pytest.mark.parametrize(("rule", "task"), NO_TASK)
def test_the_refusal_of_a_task_names_a_rule_that_serves_it(rule, task):
    with pytest.raises(Unsupported) as refusal:
        net = toy(task).net()
        suite(rule)().make(net).check_task(net.task)
    instead = re.findall(r"(?:algo=|or )(\w+)", str(refusal.value))
    assert any(task in column for other in instead if other in TASK_TABLE for column in TASK_TABLE[other].values())
