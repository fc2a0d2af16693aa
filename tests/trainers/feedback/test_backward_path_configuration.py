from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from localearn import FeedbackAlignment, InputSpec, ProductFeedbackAlignment, SignSymmetry, cli
from localearn.training.building import build_net


def built(*overrides: str):
    config, _ = cli.compose(["dataset=cifar10", *overrides])
    options: Any = OmegaConf.to_container(config.net, resolve=True)
    net = build_net(options, InputSpec((3, 32, 32)), 10)
    return config, instantiate(config.algo, net)


@pytest.mark.parametrize(
    ("algo", "rule", "decay", "schedule"),
    [
        ("feedback_alignment", FeedbackAlignment, 0.0001, "ConstantLR"),
        ("sign_symmetry", SignSymmetry, 0.0001, "ConstantLR"),
        ("product_feedback_alignment", ProductFeedbackAlignment, 0.03, "StepWithDecay"),
    ],
)
def test_a_rules_file_builds_it_with_its_published_optimizer(algo, rule, decay, schedule):
    config, trainer = built(f"algo={algo}", "net=lenet", "recipe=dense")  # on maps one has smaller steps
    assert type(trainer) is rule
    assert config.optim._target_ == "torch.optim.SGD"
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (0.01, 0.9, decay)
    assert config.schedule._target_.endswith(f".{schedule}")


def test_another_optimizer_can_be_chosen():
    config, _ = built("algo=feedback_alignment", "net=lenet_cifar", "optim=adam", "optim.lr=0.001")
    assert (config.optim._target_, config.optim.lr) == ("torch.optim.Adam", 0.001)


@pytest.mark.parametrize(("net", "paths"), [("resnet20", 19), ("lenet", 4), ("lenet_cifar", 4), ("cnn", 4), ("mlp", 2)])
def test_every_layer_but_the_first_has_a_path_on_the_nets_of_the_published_rows(net, paths):
    _, trainer = built("algo=sign_symmetry", "algo.variant=frsf", f"net={net}")
    assert len(trainer.named_paths()) == paths
