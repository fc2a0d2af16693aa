"""The space of a search: as a configuration has it, altered by a command line, and as Optuna's distributions."""

import math
from typing import Any

import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from localearn.composition import compose
from localearn.errors import UserError
from localearn.training.building import CONF
from localearn.training.experiment import build
from localearn.tuning import read_space
from localearn.tuning.space import altered

CONFIG = {
    "epochs": 3,
    "optim": {"_target_": "torch.optim.Adam", "lr": 0.001},
    "net": {"_target_": "localearn.MLP", "dropout": 0.0},
    "tune": {"space": {}},
}


SPACE = {"optim": {"lr": {"low": 0.001, "high": 0.1, "log": True}}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tune.space.lr={low:1e-5,high:1,log:true}", {"optim": {"lr": {"low": 1e-5, "high": 1, "log": True}}}),
        ("tune.space.optim.lr.high=1.0", {"optim": {"lr": {"low": 0.001, "high": 1.0, "log": True}}}),
        ("tune.space.lr.high=1.0", {"optim": {"lr": {"low": 0.001, "high": 1.0, "log": True}}}),
        ("tune.space.lr=null", {}),
        ("tune.space.dropout={low:0,high:0.5}", {**SPACE, "net": {"dropout": {"low": 0, "high": 0.5}}}),
        ("tune.space.epochs={choices:[1,2]}", {**SPACE, "epochs": {"choices": [1, 2]}}),
    ],
)
def test_the_space_can_be_altered(override, expected):
    assert altered(SPACE, [override], CONFIG) == expected
    assert SPACE == {"optim": {"lr": {"low": 0.001, "high": 0.1, "log": True}}}, "the algorithm's own stays"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.space.rl={low:0,high:1}", "no option rl.*lr"),
        ("tune.space._target_={choices:[a]}", r"optim\._target_ or tune.space.net\._target_"),
        ("tune.space.lr={low:0,high", "cannot read"),
        ("tune.space.lr.low.low=3", "is no group"),
    ],
)
def test_a_range_of_nothing_is_refused(override, message):
    with pytest.raises(UserError, match=message):
        altered(SPACE, [override], CONFIG)


RULES = sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))


OPTIONS: dict[str, Any] = {
    "optim": {"lr": 0.001, "betas": [0.9, 0.999]},
    "net": {"dropout": 0.0, "norm": "none", "widths": [8]},
    "batch_size": 128,
    "patience": None,
}


# What refuses an MLP on the digits.
OTHERWISE = {
    "state_feedback": ["dataset=adding", "net.widths=[8]"],
    "forward_gnn": ["dataset=karate", "net.widths=[8]"],
    "noprop": ["dataset=digits", "net.hidden=8", "net.steps=1"],
}


def composed(rule, *overrides):
    asked = OTHERWISE.get(rule, ["dataset=digits", "net.widths=[8]"])
    config, choices = compose([f"algo={rule}", *asked, *overrides])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return config, choices, plain


def at(config, path):
    for name in path.split("."):
        config = config[name]
    return config


def ends(distribution):
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return distribution.low, distribution.high


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_brings_a_space_around_its_defaults(rule):
    _, _, plain = composed(rule)
    for path, distribution in read_space(plain).items():
        default = at(plain, path)
        known = default not in (0, None)  # null: the rule chooses by the net
        assert not known or distribution._contains(distribution.to_internal_repr(default)), f"{path}: {default}"


@pytest.mark.parametrize("rule", RULES)
def test_every_end_of_a_rules_space_can_be_built(rule):
    _, _, plain = composed(rule)
    for path, distribution in read_space(plain).items():
        for value in ends(distribution):
            config, choices, _ = composed(rule, f"{path}={value}")
            _, trainer, _ = build(config, choices)
            assert trainer.net.depth == 1


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"optim": {"lr": {"low": 1e-4, "high": 0.1, "log": True}}}, FloatDistribution(1e-4, 0.1, log=True)),
        ({"net": {"dropout": {"low": 0, "high": 1}}}, FloatDistribution(0, 1)),
        ({"net": {"dropout": {"low": 0, "high": 0.5, "step": 0.1}}}, FloatDistribution(0, 0.5, step=0.1)),
        ({"batch_size": {"low": 32, "high": 512, "log": True}}, IntDistribution(32, 512, log=True)),
        ({"patience": {"low": 1, "high": 9, "step": 2}}, IntDistribution(1, 9, step=2)),
        ({"net": {"norm": {"choices": ["none", "layer"]}}}, CategoricalDistribution(["none", "layer"])),
        ({"net": {"widths": {"choices": [[8], [8, 8]]}}}, CategoricalDistribution(["[8]", "[8,8]"])),
    ],
)
def test_a_range_becomes_optunas_distribution(space, expected):
    (distribution,) = read_space({**OPTIONS, "tune": {"space": space}}).values()
    assert distribution == expected


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "nothing to search"),
        ({"optim": {"rl": {"low": 0, "high": 1}}}, "no option optim.rl.*lr"),
        ({"lr": {"low": 0, "high": 1}}, "no option lr"),
        ({"optim": 3}, "tune.space.optim must be a range"),
        ({"optim": {"lr": 0.1}}, "tune.space.optim.lr must be a range"),
        ({"optim": {"lr": {"low": 1, "high": 0.1}}}, "low < high"),
        ({"optim": {"lr": {"low": True, "high": 2}}}, "low < high"),
        ({"optim": {"lr": {"low": 0.1, "high": math.nan}}}, "low < high"),
        ({"optim": {"lr": {"low": 0.1}}}, "low < high"),
        ({"optim": {"lr": {"low": 0, "high": 1, "log": True}}}, "low > 0"),
        ({"optim": {"lr": {"low": 0.1, "high": 1, "log": "yes"}}}, "log is true or false"),
        ({"optim": {"lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}}, "not beside log"),
        ({"optim": {"lr": {"low": 0.1, "high": 1, "step": 2}}}, "at most high - low"),
        ({"optim": {"lr": {"lo": 0.1, "high": 1}}}, "no 'lo'.*low"),
        ({"net": {"norm": {"choices": []}}}, "choices must be a list"),
        ({"net": {"norm": {"choices": ["none"], "low": 1}}}, "choices must be a list"),
    ],
)
def test_what_is_no_space_is_refused_in_a_line(space, message):
    with pytest.raises(UserError, match=message) as refusal:
        read_space({**OPTIONS, "tune": {"space": space}})
    assert "\n" not in str(refusal.value)
