"""One set of defaults: Python and the command line train by the same options where neither is told any."""

import functools
import inspect
import shutil
from dataclasses import fields
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import localearn
from localearn import (
    GNN,
    MLP,
    Backprop,
    ForwardForward,
    LikelihoodRatio,
    MonoForward,
    UserError,
    cli,
    defaults,
    load,
    load_net,
)
from localearn.data import ArrayData
from localearn.defaults import KINDS, LEARNING, fit_options, rule_name, rule_names
from localearn.files import read_yaml
from localearn.training.building import CONF, build_net_for, locate, optimizer_factory, schedule_factory
from localearn.training.experiment import execute
from localearn.training.loading import resumed
from localearn.training.settings import Settings

NETS = {"dense": "mlp", "maps": "cnn", "graph": "gcn"}
OF_SEQUENCES = ("state_feedback",)  # which refuses such nets, and has its own file's test of both ways
ON_GRAPHS = ("forward_gnn",)  # alone
OF_ITS_OWN = {
    "noprop": {"dense": "noprop_mlp", "maps": "noprop_cnn"},
    "model_free": {"dense": "physical"},
}  # nets of a rule that takes no other
SMALL = {
    **{"mlp": {"widths": [12, 10]}, "cnn": {"channels": [4, 6]}, "gcn": {"widths": [8, 6]}},
    "noprop_mlp": {"hidden": 8, "steps": 2},
    "physical": {"widths": [12, 10]},
    "noprop_cnn": {"hidden": 8, "steps": 2, "channels": [3, 4, 5]},
}
BOTH_WAYS = [
    pytest.param(rule, kind, marks=[pytest.mark.slow] if kind == "maps" else [])
    for rule in rule_names()
    for kind in OF_ITS_OWN.get(rule, NETS)
    if rule not in OF_SEQUENCES and (rule not in ON_GRAPHS or kind == "graph")
]


def net_for(rule, kind):
    return OF_ITS_OWN.get(rule, NETS).get(kind, NETS[kind])


def options_in(path):
    return {name: value for name, value in read_yaml(path).items() if name != "_target_"}


def signature(target):
    parameters = inspect.signature(target).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def composed(rule, kind, *overrides):
    data = "karate" if kind == "graph" else "digits"
    return plain(f"algo={rule}", f"net={net_for(rule, kind)}", f"dataset={data}", *overrides)


def plain(*overrides) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(cli.compose(overrides)[0], resolve=True)
    return values


@pytest.mark.parametrize("rule", rule_names())
def test_a_rules_signature_is_its_file(rule):
    options = dict(read_yaml(CONF / "algo" / f"{rule}.yaml")["algo"])
    target = locate("algo", options.pop("_target_"))
    assert signature(target) == options
    assert rule_name(target) == rule


@pytest.mark.parametrize("rule", rule_names())
def test_a_recipe_sets_what_python_takes_from_it(rule):
    """What it says beside these groups, `fit` fills in; another key would be the command line's alone."""
    file = read_yaml(CONF / "algo" / f"{rule}.yaml")
    lines = [line.partition("=")[0].partition(".")[0] for lines in file.get("recipes", {}).values() for line in lines]
    assert {*file, *lines} <= {*LEARNING, "algo", "net", "dataset", "about", "defaults", "recipes", "refused", "tune"}
    assert set(file.get("recipes", {})) <= {*KINDS, "paper", "values"}


def test_the_settings_are_those_of_the_general_configuration():
    shipped, settings = read_yaml(CONF / "config.yaml"), Settings()
    elsewhere = {"optim", "schedule", "energy", "country", "idle_s"}
    quiet = {"progress": (False, True)}  # a command says what it does, and a function does not
    for field in fields(Settings):
        if field.name not in elsewhere:
            assert (getattr(settings, field.name), shipped[field.name]) == quiet.get(
                field.name, (shipped[field.name], shipped[field.name])
            ), field.name
    assert settings.idle_s == shipped["energy"]["idle_s"] and settings.country is shipped["energy"]["country"] is None
    general = localearn.recipe("backprop")["fit"]
    assert str(general["optim"]) == str(settings.optim), "by which a run that Python began is compared when it goes on"
    assert general["schedule"] is settings.schedule is None


@pytest.mark.parametrize("path", sorted((CONF / "dataset").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_data_set_brings_no_options_of_training_but_its_epochs(path):
    file = read_yaml(path)
    assert file.keys() <= {"defaults", "epochs", "eval_batch_size", "dataset"}  # by the size nothing is learned
    assert all(list(entry) == ["override /net"] for entry in file.get("defaults", []))


def trajectory(optim, schedule, epochs):
    """Return the optimizer's class and its groups' options after each epoch."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    optimizer = optim([parameter])
    stepped, seen = schedule(optimizer) if schedule else None, []
    for _ in range(epochs):
        group = {
            name: value for name, value in optimizer.param_groups[0].items() if name not in ("params", "initial_lr")
        }
        seen.append({name: list(value) if isinstance(value, tuple) else value for name, value in group.items()})
        optimizer.step()
        if stepped:
            stepped.step()
    return type(optimizer), seen


@pytest.mark.parametrize(("name", "kind"), [*(("default", kind) for kind in NETS), ("paper", "dense")])
@pytest.mark.parametrize("rule", rule_names())
def test_python_reads_what_hydra_composes(rule, name, kind):
    config = composed(rule, kind, f"recipe={kind if name == 'default' else name}", "epochs=40")
    told = localearn.recipe(rule, kind, name, epochs=40)
    assert told["algo"] == {key: value for key, value in config["algo"].items() if key != "_target_"}
    values = [key for key in LEARNING if key not in ("optim", "schedule")]
    assert {key: told["fit"][key] for key in values} == {key: config[key] for key in values}
    ours = trajectory(told["fit"]["optim"], told["fit"]["schedule"], 40)
    assert ours == trajectory(optimizer_factory(config["optim"]), schedule_factory(config["schedule"]), 40)
    if name == "paper":  # whose net the user has not chosen
        config = plain(f"algo={rule}", "recipe=paper", "dataset=digits")
    for group in ("net", "dataset"):
        there = {key: value for key, value in told[group].items() if key in config[group]}
        assert {key: config[group][key] for key in there} == there


def by_command(rule, kind, out, *overrides):
    size = [f"net.{name}={value}".replace(" ", "") for name, value in SMALL[net_for(rule, kind)].items()]
    few = [] if kind == "graph" else ["dataset.train_size=150"]
    config, choices = cli.compose(
        [
            *(
                f"algo={rule}",
                f"net={net_for(rule, kind)}",
                f"dataset={'karate' if kind == 'graph' else 'digits'}",
                *size,
                *few,
            ),
            # By its name, since as a default it may be refused.
            *(f"recipe={kind}", "progress=false", "energy.enabled=false", "device=cpu", f"out={out}", *overrides),
        ]
    )
    return execute(config, choices)


def by_python(rule, kind, out, **given):
    """Do what the README says, the net's other options being those of the file that the command line has chosen."""
    options = localearn.recipe(rule, kind)
    if kind == "graph":
        data = load("karate", **options["dataset"])
    else:
        data = load("digits", train_size=150, **options["dataset"])
    target = locate("algo", read_yaml(CONF / "algo" / f"{rule}.yaml")["algo"]["_target_"])
    file = CONF / "net" / f"{net_for(rule, kind)}.yaml"
    net = locate("net", read_yaml(file)["_target_"])
    of_net = options_in(file) | options["net"] | SMALL[net_for(rule, kind)]
    of_net.pop("group")  # which is for Net.group
    torch.manual_seed(0)
    trainer = target(net(target.input_shape_for(data, kind), data.classes, **of_net))
    return trainer.fit(data, device="cpu", out=out, **given), trainer.net


@pytest.mark.parametrize(("rule", "kind"), BOTH_WAYS)
def test_a_run_by_both_ways_gives_the_same_bits(rule, kind, tmp_path):
    commanded = by_command(rule, kind, tmp_path / "command", "epochs=3")
    called, net = by_python(rule, kind, tmp_path / "python", epochs=3)
    same = ("stage", "epoch", "train_loss", "val_loss", "val_accuracy", "lr")
    assert [[line[name] for name in same] for line in called.history] == [
        [line[name] for name in same] for line in commanded.history
    ]
    assert (called.test_loss, called.batch_size) == (commanded.test_loss, commanded.batch_size)
    loaded = load_net(tmp_path / "command").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in net.state_dict().items())


def test_values_have_a_recipe_of_their_own_by_both_ways_alike(tmp_path):
    config, choices = cli.compose(
        ["algo=pepita", "dataset=diabetes", "net.widths=[8,8]", "epochs=3", "progress=false", "energy.enabled=false",
         "device=cpu", f"out={tmp_path / 'command'}"]
    )  # fmt: skip
    assert choices["recipe"] == "values" and config["dataset"]["normalize"] == "standard"
    commanded = execute(config, choices)
    told = localearn.recipe("pepita", name="values")
    data = load("diabetes", **told["dataset"])
    torch.manual_seed(0)
    net = localearn.MLP(10, 1, widths=(8, 8), **told["net"]).for_task(data.task)
    called = localearn.Pepita(net).fit(data, device="cpu", epochs=3)
    same = ("train_loss", "val_loss", "val_rmse", "lr")
    assert [[line[name] for name in same] for line in called.history] == [
        [line[name] for name in same] for line in commanded.history
    ]
    assert told["net"]["init"] == "default" != localearn.recipe("pepita")["net"]["init"]


def test_a_recipe_for_values_may_say_how_the_rule_learns(tmp_path, monkeypatch):
    file = tmp_path / "conf" / "algo" / "pepita.yaml"
    shutil.copytree(CONF, tmp_path / "conf")
    file.write_text(file.read_text().replace("values: [", "values: [algo.scale=0.07, optim.lr=0.003, "))
    monkeypatch.setattr(defaults, "CONF", tmp_path / "conf")
    defaults._composed.cache_clear()
    try:
        values = localearn.Pepita(localearn.MLP(10, 1, widths=(8,)).for_task(localearn.Regression()))
        record = values.fit(load("diabetes"), device="cpu", epochs=1)
        assert record.history[0]["lr"] == 0.003
        assert 0.07 / 2 < values.feedback.abs().max() / (6 / 10) ** 0.5 <= 0.07
        classes = localearn.Pepita(localearn.MLP((1, 8, 8), 10, widths=(8,)))
        record = classes.fit(load("digits", train_size=50), device="cpu", epochs=1)
        assert record.history[0]["lr"] == 0.02
        assert classes.feedback.abs().max() / (6 / 64) ** 0.5 <= 0.05
    finally:
        defaults._composed.cache_clear()


def test_a_rule_without_a_recipe_for_values_takes_its_kinds():
    for rule in rule_names():
        config, choices = cli.compose([f"algo={rule}", "dataset=diabetes", "net=mlp"])
        has = "values" in read_yaml(CONF / "algo" / f"{rule}.yaml").get("recipes", {})
        assert choices["recipe"] == ("values" if has else "dense"), config
    assert cli.compose(["algo=pepita", "dataset=diabetes", "recipe=alike"])[1]["recipe"] == "values"
    assert cli.compose(["algo=pepita", "dataset=digits"])[1]["recipe"] == "dense"


@pytest.mark.parametrize("kind", NETS)
def test_with_no_option_at_all_the_epochs_are_the_same_too(kind, tmp_path):
    commanded = by_command("forward_forward", kind, tmp_path / "command")
    called, _ = by_python("forward_forward", kind, tmp_path / "python")
    assert called.passes == commanded.passes > 3
    assert called.test_loss == commanded.test_loss
    assert called.config["monitor"] == commanded.config["monitor"]


def test_a_data_set_that_localearn_brings_has_its_own_epochs():
    own = read_yaml(CONF / "dataset" / "mnist.yaml")["epochs"]
    assert fit_options(MonoForward, "dense", "mnist")["epochs"] == own != Settings().epochs
    assert fit_options(MonoForward, "dense", "../dataset/mnist")["epochs"] == Settings().epochs
    assert fit_options(MonoForward, "dense", "mnist", 3)["epochs"] == 3


def test_what_the_caller_gives_wins():
    net = MLP(6, 3, widths=(5, 4))
    recipe = localearn.recipe(LikelihoodRatio, "dense")["algo"]
    trainer = LikelihoodRatio(net, 0.3, copies=4, layerwise=not recipe["layerwise"])
    assert (trainer.sigmas, trainer.copies, trainer.layerwise) == ([0.3, 0.3], 4, not recipe["layerwise"])
    assert LikelihoodRatio(net=net).layerwise is recipe["layerwise"]
    data = load("digits", train_size=60)
    optim = functools.partial(torch.optim.SGD, lr=0.25)
    record = ForwardForward(MLP((1, 8, 8), 10, widths=(6,))).fit(data, 2, batch_size=30, optim=optim, schedule=None)
    assert [line["lr"] for line in record.history] == [0.25, 0.25]
    assert record.batch_size == 30


def test_a_schedule_that_falls_over_the_epochs_is_of_those_that_are_made():
    data = load("digits", train_size=60)
    record = ForwardForward(MLP((1, 8, 8), 10, widths=(6,))).fit(data, epochs=4)
    first = localearn.recipe("forward_forward", "dense")["fit"]["optim"].keywords["lr"]
    assert [line["lr"] for line in record.history] == pytest.approx([first, first, first, first / 2])


def test_a_rule_of_ones_own_has_the_general_options():
    class Mine(Backprop):
        def __init__(self, net, copies: int = 5):
            super().__init__(net)
            self.copies = copies

    Mine.__module__ = "my_rules"
    assert Mine(MLP(6, 3, widths=(4,))).copies == 5
    assert localearn.recipe(Mine)["algo"] == {}
    graph, general = localearn.recipe(Mine, "graph")["fit"], localearn.recipe(Mine)["fit"]
    assert str(general["optim"]) == str(Settings().optim)
    assert (graph["monitor"], graph["epochs"]) == (composed("backprop", "graph")["monitor"], 200)


def test_what_is_returned_may_be_changed():
    def told():
        return {(rule, kind): str(localearn.recipe(rule, kind)) for rule in rule_names() for kind in NETS}

    before = told()
    for rule, kind in before:
        for options in localearn.recipe(rule, kind).values():
            for value in options.values():
                if isinstance(value, functools.partial):
                    value.keywords.clear()
            options.clear()
    assert told() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("backprob",), "no rule 'backprob'; did you mean 'backprop'"),
        (("backprop", "mlp"), "no kind of net 'mlp'; did you mean 'maps'.; there are dense, maps, graph"),
        (("backprop", "dense", "papr"), "no recipe 'papr'; did you mean 'paper'"),
    ],
)
def test_what_there_is_not_is_told(arguments, told):
    with pytest.raises(UserError, match=told):
        localearn.recipe(*arguments)


def test_a_record_names_the_options_that_a_file_of_ones_own_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text("# @package _global_\nalgo:\n  _target_: localearn.LikelihoodRatio\n")
    small = ("net=mlp_2x256", "net.widths=[6]", "dataset.train_size=60", "epochs=1", "energy.enabled=false")
    config, choices = cli.compose(["algo=mine", *small, "progress=false", "out=run"], str(tmp_path))
    record = execute(config, choices)
    recipe = localearn.recipe("likelihood_ratio", "dense")["algo"]
    assert {name: record.config["algo"][name] for name in recipe} == recipe
    assert dict(resumed("run", ["epochs=2"])[0].algo) == record.config["algo"]

    saved = tmp_path / "run" / "config.yaml"
    lines = saved.read_text().splitlines(keepends=True)
    saved.write_text("".join(line for line in lines if line.partition(":")[0].strip() not in ("copies", "layerwise")))
    older = resumed("run", ["epochs=2"])[0].algo
    assert (older.copies, older.layerwise) == (2, False), "what the constructor did when that record was written"


built = []


class Counted(MLP):
    def __init__(self, input_shape, classes):
        built.append(tuple(input_shape))
        super().__init__(input_shape, classes, widths=(5,))


class Convolves(localearn.CNN):
    kind = "dense"  # which it is not

    def __init__(self, input_shape, classes):
        super().__init__(input_shape, classes, channels=(3,))


def rows(*shape):
    x, y = torch.rand(12, *shape), torch.arange(12) % 3
    splits = ("train", "val", "test")
    return ArrayData("rows", dict.fromkeys(splits, x), dict.fromkeys(splits, y), 3)


@pytest.mark.parametrize(("rule", "shape"), [(ForwardForward, (9,)), (MonoForward, (6,))])
def test_a_net_is_built_once(rule, shape):
    built.clear()
    net = build_net_for(rule, {"_target_": f"{__name__}.Counted"}, rows(6))
    assert built == [shape] == [net.input_shape]


def test_a_net_that_does_not_say_what_it_is_is_built_as_the_rule_asks_of_it():
    net = build_net_for(ForwardForward, {"_target_": f"{__name__}.Convolves"}, rows(2, 4, 4))
    assert net.input_shape == (5, 4, 4)


def test_a_graphs_net_takes_its_kind_from_its_class():
    assert ForwardForward(GNN(9, 3, widths=(5, 4))).mean_goodness
    assert not ForwardForward(MLP(9, 3, widths=(5, 4))).mean_goodness
