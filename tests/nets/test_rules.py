"""Each rule on each net, and on nets whose blocks are grouped: it trains all that it says it trains, or refuses."""

import functools

import pytest
import torch
from torch import nn

import localearn
from localearn import (
    Backprop,
    CaFo,
    DirectFeedbackAlignment,
    ForwardGradient,
    LocalLoss,
    MonoForward,
    Net,
    Unsupported,
    registry,
)
from localearn.data import Batch
from tests.marks import slow_but

# Rules of nets that are not here: the conformance suite and their own tests train them.
LEFT_OUT = {
    "forward_gnn": "of graphs alone",
    "model_free": "of nets of its own, net=physical",
    "state_feedback": "of recurrent nets alone",
}
RULES = {
    **{
        rule.name: getattr(localearn, rule.class_name)
        for rule in registry.rules().values()
        if rule.name not in LEFT_OUT
    },
    "mono_forward_greedy": lambda net: MonoForward(net, schedule="greedy"),
    "local_loss_auglocal": lambda net: LocalLoss(net, head="auglocal"),
    "dfa_kernel": lambda net: DirectFeedbackAlignment(net, feedback="kernel"),
    "forward_gradient_noise": lambda net: ForwardGradient(net, guess="noise", tangents=2),
    "forward_gradient_weights": lambda net: ForwardGradient(net, space="weight"),
    "cafo_dfa": lambda net: CaFo(net, loss="ce", blocks="dfa"),
}
# The library's first nets, and graphs, are the conformance suite's.
ALONE = (
    "vgg",
    "resnet20",
    "resnet18",
    "resnet18_imagenet",
    "mobilenet",
    "torchvision",
    "vit",
    "mixer",
    "from_blocks",
    "deepfm",
    "denoiser",
)
GROUPED = ("mlp", "lenet", "resnet18", "torchvision", "vit", "mixer", "from_blocks", "deepfm", "denoiser")
OF_SEQUENCES = ("vit", "mixer")  # which counter-current learning refuses
OF_LINEAR_MAPS = ("vgg",)  # each block one, as PEPITA asks


def trained(rule, small):
    before = {name: p.clone() for name, p in rule.named_parameters()}
    adam = functools.partial(torch.optim.Adam, lr=1e-4)  # by signs alone an error grows through a deep net
    record = rule.fit(small.data(), epochs=2, batch_size=3, optim=adam, energy=False, progress=False)
    assert record.status == "completed"
    learned = {id(p) for phase in rule.phases() for p in phase.parameters}
    still = [name for name, p in rule.named_parameters() if id(p) in learned and torch.equal(p, before[name])]
    assert not still, f"{still} did not move"
    assert all(p.isfinite().all() for p in rule.parameters())


@pytest.mark.parametrize("rule", LEFT_OUT)
@pytest.mark.parametrize("small", ["mlp"], indirect=True)
def test_a_rule_that_is_left_out_refuses_such_nets(small, rule):
    with pytest.raises(Unsupported):
        getattr(localearn, registry.rules()[rule].class_name)(small())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("small", slow_but(ALONE, "vgg", "resnet20", "torchvision", "from_blocks"), indirect=True)
def test_a_rule_trains_a_net_or_refuses_it(small, rule):
    net = small()
    torch.manual_seed(1)
    if (rule, small.name) == ("forward_forward", "deepfm"):
        with pytest.raises(Unsupported, match="build DeepFM for 3 columns more"):
            trained(RULES[rule](net), small)
    elif rule == "pepita" and small.name not in OF_LINEAR_MAPS:
        with pytest.raises(
            Unsupported, match=r"not one linear map and what follows it; use net=mlp, cnn, gcn or sage, or algo="
        ):
            RULES[rule](net)
    elif rule == "noprop" and small.name != "denoiser":
        with pytest.raises(Unsupported, match=r"do not; use net=noprop_mlp, net=noprop_cnn or, .*algo=mono_forward"):
            RULES[rule](net)
    elif rule == "counter_current" and small.name in OF_SEQUENCES:
        with pytest.raises(Unsupported, match="runs through vectors and maps"):
            RULES[rule](net)
    else:
        trained(RULES[rule](net), small)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("small", slow_but(GROUPED, "mlp", "torchvision", "vit"), indirect=True)
def test_a_rule_trains_blocks_that_are_grouped_or_refuses_them(small, rule):
    net = small().group(2)
    torch.manual_seed(1)
    if rule == "pepita":
        with pytest.raises(Unsupported, match=r"not one linear map and what follows it; .* with net.group=1"):
            RULES[rule](net)
    elif rule == "noprop":
        with pytest.raises(Unsupported, match=r"use net.group=1" if small.name == "denoiser" else "use net=noprop_mlp"):
            RULES[rule](net)
    elif rule == "counter_current" and small.name in OF_SEQUENCES:
        with pytest.raises(Unsupported, match="runs through vectors and maps"):
            RULES[rule](net)
    elif (rule, small.name) != ("forward_forward", "deepfm"):  # whose labels have no columns here
        trained(RULES[rule](net), small)


@pytest.mark.parametrize("small", ["resnet18", "mobilenet", "vit", "mixer"], indirect=True)
@pytest.mark.parametrize("rule", ["backprop", "mono_forward", "direct_feedback_alignment", "feedback_alignment"])
@pytest.mark.parametrize(
    "options", [{"precision": "bf16"}, {"memory_format": "channels_last"}, {"step": "block"}], ids=str
)
def test_precision_memory_and_steps_are_served(small, rule, options):
    rule = RULES[rule](small())
    record = rule.fit(small.data(), epochs=2, batch_size=3, energy=False, progress=False, **options)
    assert record.status == "completed"
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in rule.parameters())


def test_layers_that_share_weights_are_trained_together():
    def tied():
        torch.manual_seed(0)
        layer = nn.Linear(6, 6)
        stages = [nn.Sequential(layer, nn.ReLU()), nn.Sequential(layer, nn.Tanh()), layer]
        return Net.from_blocks(None, stages, nn.Linear(6, 3), input_shape=(6,))

    x = torch.randn(6, 6, dtype=torch.float64)
    batch = Batch(x, torch.arange(6) % 3)
    net = tied().double()
    MonoForward(net.group(3)).gradients(batch)
    other = tied().double()
    Backprop(other).gradients(batch)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    with pytest.raises(Unsupported, match="blocks share weights; use schedule=joint"):
        MonoForward(tied(), schedule="greedy")
