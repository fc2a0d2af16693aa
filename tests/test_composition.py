"""A run is composed once: what its recipe depends on is foreseen, and comes to what composing it twice does."""

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from localearn import composition
from localearn.composition import CONF, compose
from localearn.errors import UserError
from localearn.recipes import foreseen
from tests.marks import slow_but

CASES = [
    ("algo=backprop",),
    ("algo=backprop", "net=gcn"),
    ("algo=forward_gnn",),  # chooses its data, which choose their net
    ("algo=state_feedback", "recipe=alike"),  # chooses both
    ("algo=noprop", "net.group=2"),  # whose recipe chooses the net
    ("algo=forward_forward", "recipe=paper", "optim=adam", "optim.lr=0.5"),
    ("algo=pepita", "dataset=diabetes"),  # of values
    ("algo=pepita", "dataset.task=regression", "dataset.normalize=none"),
    ("net=cnn", "algo=mono_forward", "net._target_=localearn.MLP"),
    ("dataset=text", "kind=dense", "out=a b"),
    ("algo=forward_forward", "+algo.new=1", "~net.init", "++optim.lr=2"),
    ("algo=pepita", "dataset.task={_target_:my.Task}"),
    ("algo=pepita", "dataset.task=${log}", "log=regression"),
    ("algo=likelihood_ratio", "recipes.dense=['optim=sgd']", "refused={}"),
]
QUICK = [CASES[2], CASES[5]]


@pytest.mark.parametrize("overrides", slow_but(map(list, CASES), *map(list, QUICK)))
def test_once_and_twice_give_the_same(overrides):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        parts = foreseen(overrides)
        assert parts is not None
        found = composition._composed(overrides, overrides, parts)
        expected = composition._composed_twice(overrides, overrides)
    assert found[1] == expected[1]
    for key in found[0]:
        if key != "hydra":
            assert OmegaConf.to_yaml({key: found[0][key]}) == OmegaConf.to_yaml({key: expected[0][key]})


@pytest.mark.parametrize(
    "overrides",
    [["algo=mine"], ["algo=${x}"], ["net@other=mlp"], ["~net"], ["epochs=1,2"], ["epochs"], ["dataset=5"], ["net.a='"]],
)  # fmt: skip
def test_what_the_files_do_not_say_is_left_to_hydra(overrides):
    assert foreseen(overrides) is None


def test_hydra_composes_once(monkeypatch):
    calls = []
    real = hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda *given, **options: calls.append(given) or real(*given, **options))
    compose(["algo=forward_forward", "net=cnn"])
    assert len(calls) == 1
    with pytest.raises(UserError, match=r"no key 'optim\.rl'"):
        compose(["optim.rl=1"])
