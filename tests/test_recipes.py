"""A rule's options where the user names none: by the kind of net, and by the name of the published recipe."""

import functools

import pytest

from localearn import cli
from localearn.benching.workload import Size
from localearn.cli import compare, run
from localearn.cli.bench import parse
from localearn.errors import UserError
from localearn.files import read_yaml
from localearn.nets import Net
from localearn.training.building import CONF, locate
from tests.marks import slow_but

RULES = sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))
NETS = {"dense": "mlp", "maps": "cnn", "graph": "gcn"}


@functools.cache
def composed(*overrides):
    config, choices = cli.compose(overrides)
    return config, choices["recipe"]


def test_the_kind_of_net_decides():
    for kind, net in NETS.items():
        config, recipe = composed("algo=forward_forward", f"net={net}")
        assert recipe == kind
        assert config.algo.goodness == ("sum" if kind == "dense" else "mean")
    assert "recipe" not in config and "recipes" not in config, "a record says what they came to"


def test_every_shipped_net_says_its_kind():
    for path in (CONF / "net").glob("*.yaml"):
        net = locate("net", read_yaml(path)["_target_"])
        assert "kind" in vars(net) or net.kind == Net.kind == "dense"
        assert (net.kind == "dense") == (net.__name__ in ("MLP", "DeepFM", "Denoiser", "Physical"))


def test_what_the_user_sets_wins():
    config, _ = composed("algo=forward_forward", "net=cnn", "algo.goodness=sum", "net.init=default", "optim.lr=0.5")
    assert (config.algo.goodness, config.net.init, config.optim.lr) == ("sum", "default", 0.5)


def test_a_chosen_optimizer_has_none_of_what_was_meant_for_another():
    published, _ = composed("algo=forward_forward", "recipe=paper")
    assert (published.optim._target_, published.optim.weight_decay) == ("torch.optim.SGD", 0.0003)
    chosen, _ = composed("algo=forward_forward", "recipe=paper", "optim=adamw")
    assert (chosen.optim._target_, chosen.optim.weight_decay) == ("torch.optim.AdamW", 0.01)


def test_a_chosen_net_has_none_of_what_was_meant_for_another():
    config, _ = composed("algo=product_feedback_alignment", "recipe=paper", "net=cnn")
    assert config.net._target_ == "localearn.CNN"
    assert config.net.init == "default"
    assert composed("algo=product_feedback_alignment", "recipe=paper")[0].net.widths == [512, 512]


def test_another_rule_of_the_same_file_has_none_of_the_recipes_own_options():
    config, _ = composed("algo=likelihood_ratio", "algo._target_=localearn.Backprop")
    assert config.algo.copies == 16


def test_a_net_without_the_option_is_served():
    config, recipe = composed("algo=forward_forward", "net=resnet20")
    assert recipe == "maps"
    assert "init" not in config.net


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("recipe", slow_but(["default", "paper"], "default"))
@pytest.mark.parametrize(
    ("net", "data"), [("mlp", "digits"), ("cnn", "digits"), ("resnet20", "digits"), ("gcn", "karate")]
)
def test_every_recipe_is_of_options_that_there_are(rule, recipe, net, data):
    """A wrong key or choice would end composing; every recipe's own keys are tried by nets that have them."""
    options = [f"algo={rule}", f"net={net}", f"dataset={'karate' if net == 'gcn' else 'digits'}"]
    file = read_yaml(CONF / "algo" / f"{rule}.yaml")
    if recipe == "default" and net.upper() in file.get("refused", {}):
        with pytest.raises(
            UserError, match=f"no default recipe for {net.upper()}: .*; recipe=maps runs it all the same"
        ):
            composed(*options)
        recipe = "maps"
    composed(*options, f"recipe={recipe}")


def test_the_published_recipe_of_forward_forward_is_the_ports():
    config, _ = composed("algo=forward_forward", "dataset=mnist", "recipe=paper")
    assert list(config.net.widths) == [1000] * 3
    assert (config.net.init, config.dataset.normalize) == ("fan_out_normal", "unit")
    assert (config.algo.peer_scale, config.algo.readout_lr, config.algo.readout_weight_decay) == ("port", 0.01, 0.003)
    assert (config.optim.lr, config.optim.momentum, config.epochs, config.batch_size) == (0.001, 0.9, 100, 100)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("net", ["mlp", "cnn", "gcn"])
def test_rules_that_are_compared_have_net_and_data_alike(rule, net):
    data = "karate" if net == "gcn" else "digits"
    base = composed("algo=backprop", f"net={net}", f"dataset={data}")[0]
    config = composed(f"algo={rule}", f"net={net}", f"dataset={data}", "recipe=alike")[0]
    assert (config.net, config.dataset) == (base.net, base.dataset)


def test_a_comparison_takes_what_is_alike():
    plan = compare.parse(["algos=[backprop,forward_forward]", "out=out", "batch_size=100"])
    config = cli.compose(plan.for_algo("forward_forward"))[0]
    assert config.net.init == "default"
    assert config.algo.goodness == "sum"


def test_a_bench_times_what_no_default_trains():
    plan = parse(["net=lenet", "input=[3,32,32]", "rules=[pepita]"])
    config = cli.compose(plan.for_rule("pepita", Size(None, None, 8)))[0]
    assert config.net._target_ == "localearn.LeNet"


def test_an_unknown_recipe_is_told():
    with pytest.raises(UserError, match="no recipe 'papr'; did you mean 'paper'"):
        composed("recipe=papr")


def test_a_recipe_that_is_none_is_told(tmp_path):
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text(
        "# @package _global_\nalgo:\n  _target_: localearn.Backprop\nrecipes:\n  dense: {lr: 1}\n"
    )
    with pytest.raises(UserError, match=r"recipes\.dense must be a list of overrides"):
        cli.compose(["algo=mine"], str(tmp_path))


def test_a_file_of_ones_own_brings_recipes(tmp_path):
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text(
        "# @package _global_\nalgo:\n  _target_: localearn.Backprop\n"
        "recipes:\n  dense: [optim=sgd, optim.lr=0.5]\n  quick: [epochs=1]\n"
    )
    config, choices = cli.compose(["algo=mine"], str(tmp_path))
    assert (config.optim._target_, config.optim.lr, choices["recipe"]) == ("torch.optim.SGD", 0.5, "dense")
    config, choices = cli.compose(["algo=mine", "recipe=quick"], str(tmp_path))
    assert (config.epochs, choices["recipe"]) == (1, "quick")


def test_a_sweep_and_the_shown_configuration_have_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run.main(["--cfg", "job", "algo=likelihood_ratio", "net=mlp"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("recipe: dense\n")
    assert "layerwise: true" in shown
    small = ["net=mlp_2x256", "dataset.train_size=64", "epochs=1", "energy.enabled=false", "progress=false"]
    assert run.main(["-m", "algo=likelihood_ratio,backprop", *small]) == 0
    found = {path.read_text() for path in tmp_path.glob("runs/*/config.yaml")}
    assert len(found) == 2
    assert sum("layerwise: true" in text and "recipe: dense" in text for text in found) == 1


def test_a_default_that_is_refused_says_what_to_set_and_other_recipes_are_served(tmp_path):
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text(
        "# @package _global_\nalgo:\n  _target_: localearn.Backprop\n"
        "recipes:\n  maps: [optim=sgd]\nrefused:\n  LeNet: it stays at chance, use net=cnn\n"
    )
    with pytest.raises(UserError, match="for LeNet: it stays at chance, use net=cnn; recipe=maps runs it all the same"):
        cli.compose(["algo=mine", "net=lenet"], str(tmp_path))
    for served in (["net=cnn"], ["net=lenet", "recipe=maps"], ["net=lenet", "recipe=alike"]):
        config, _ = cli.compose(["algo=mine", *served], str(tmp_path))
        assert config.optim._target_ == "torch.optim.SGD"
        assert "refused" not in config
