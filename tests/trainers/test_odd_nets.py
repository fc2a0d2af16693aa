"""Nets and data out of the ordinary: a rule refuses them before training, or trains them right."""

import copy

import pytest
import torch
from torch import nn

import localearn
from localearn import (
    GNN,
    MLP,
    Backprop,
    CaFo,
    ForwardForward,
    LikelihoodRatio,
    MonoForward,
    Net,
    Pepita,
    ScalableForwardForward,
    Shallow,
    Unsupported,
    UserError,
    registry,
)
from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.graphs import GraphData

# Rules of nets that are not here: each refuses an MLP, whatever is odd about it.
LEFT_OUT = {
    "forward_gnn": "of graphs",
    "model_free": "of its own nets",
    "noprop": "of its own nets",
    "state_feedback": "of recurrent nets",
}
RULES = [getattr(localearn, rule.class_name) for rule in registry.rules().values() if rule.name not in LEFT_OUT]
BY_DERIVATIVES = [rule for rule in RULES if rule.needs_derivatives]


def rows() -> ArrayData:
    x, y = torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    splits = ("train", "val", "test")
    return ArrayData("rows", dict.fromkeys(splits, x), dict.fromkeys(splits, y), 3)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_no_net_is_refused_with_what_makes_one(rule):
    with pytest.raises(Unsupported, match=r"trains a localearn.Net, not a Sequential; Net.from_sequential makes one"):
        rule(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)))
    with pytest.raises(Unsupported, match=r"not a NoneType$"):
        rule(None)


@pytest.mark.parametrize("rule", RULES)
def test_a_single_class_is_refused(rule):
    with pytest.raises(Unsupported, match="MLP has one class"):
        rule(MLP(6, 1, widths=(5,)))


@pytest.mark.parametrize(("activation", "name"), [("sign", "Sign"), ("heaviside", "Heaviside")])
@pytest.mark.parametrize("rule", BY_DERIVATIVES)
def test_a_rule_that_learns_by_derivatives_refuses_a_net_without_any(rule, activation, name):
    with pytest.raises(Unsupported, match=f"{rule.__name__} needs derivatives, .*{name}.*use algo=likelihood_ratio"):
        rule(MLP(6, 3, widths=(5,), activation=activation))


def test_rules_that_need_no_derivative_take_such_a_net():
    def net() -> MLP:
        return MLP(6, 3, widths=(5,), activation="sign")

    for trainer in (Pepita(net()), LikelihoodRatio(net()), CaFo(net())):
        assert trainer.fit(rows(), epochs=1).status == "completed"
    with pytest.raises(Unsupported, match="needs derivatives"):
        CaFo(net(), blocks="dfa")


@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("rule", [r for r in RULES if r is not Shallow])  # whose blocks all stay
def test_a_frozen_block_stays_and_the_rest_learns(rule, frozen):
    torch.manual_seed(0)
    net = MLP(6, 3, widths=(5, 4))
    net.block(frozen).requires_grad_(False)
    trainer = rule(net, blocks="dfa") if rule is CaFo else rule(net)
    before = copy.deepcopy(net)
    assert trainer.fit(rows(), epochs=2, restore_best=False).status == "completed"
    for k in range(net.depth):
        name = f"blocks.{k}.op.weight"
        assert torch.equal(net.get_parameter(name), before.get_parameter(name)) == (k == frozen)


@pytest.mark.parametrize("rule", [r for r in RULES if r is not CaFo])
def test_a_frozen_net_is_refused(rule):
    trainer = rule(MLP(6, 3, widths=(5,)).requires_grad_(False))
    with pytest.raises(UserError, match="the net has nothing to train: all its parameters are frozen"):
        trainer.fit(rows())


def test_a_greedy_stage_with_nothing_to_train_is_refused():
    net = MLP(6, 3, widths=(5, 4))
    net.block(1).requires_grad_(False)
    with pytest.raises(UserError, match="phase 'block 2' has nothing to train"):
        ForwardForward(net, schedule="greedy").fit(rows())


def test_a_net_without_values_is_refused():
    with pytest.raises(UserError, match="the net is on the meta device"):
        Backprop(MLP(6, 3, widths=(5,)).to("meta")).fit(rows())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_net_of_another_precision_than_the_data_is_refused(precision):
    with pytest.raises(UserError, match=r"rows has torch.float32 and .* torch.float64; use net.to\(torch.float32\)"):
        Backprop(MLP(6, 3, widths=(5,)).double()).fit(rows(), precision=precision)


def test_a_net_of_bfloat16_is_trained_where_autocast_casts():
    trainer = Backprop(MLP(6, 3, widths=(5,)).bfloat16())
    assert trainer.fit(rows(), epochs=1, precision="bf16").status == "completed"


@pytest.mark.parametrize("rule", RULES)
def test_a_net_of_bfloat16_is_trained_by_a_rule_that_autocasts_and_refused_by_another(rule):
    trainer = rule(MLP(6, 3, widths=(5,)).bfloat16())
    if trainer.autocasts:
        assert trainer.fit(rows(), epochs=1, precision="bf16").status == "completed"
    else:
        with pytest.raises(UserError, match=f"torch.bfloat16, and {rule.__name__} computes in the net's; use net.to"):
            trainer.fit(rows(), epochs=1, precision="bf16")


def test_a_net_whose_readout_alone_is_of_another_precision_is_refused():
    net = MLP(6, 3, widths=(5,))
    net.readout.double()
    with pytest.raises(UserError, match=r"the net's parameters are torch.float64"):
        Backprop(net).fit(rows())


def test_a_net_of_float16_is_refused_under_bfloat16():
    with pytest.raises(UserError, match=r"the net's parameters are torch.float16"):
        Backprop(MLP(6, 3, widths=(5,)).half()).fit(rows(), precision="bf16")


@pytest.mark.parametrize("rule", RULES)
def test_a_graph_without_labelled_nodes_is_refused(rule):
    nodes: dict[Split, torch.Tensor] = {"train": torch.arange(0), "val": torch.arange(1), "test": torch.arange(1, 2)}
    edges, labels = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1])
    graph = GraphData("pair", torch.randn(2, 5), edges, labels, nodes, 2)
    with pytest.raises(UserError, match="pair has no labelled rows in its train split"):
        rule(GNN(5, 2, widths=(4,))).fit(graph)


def test_what_is_no_data_is_refused():
    with pytest.raises(UserError, match=r"learns from a localearn.Data, say load\('digits'\), .*, not from Tensor"):
        Backprop(MLP(6, 3, widths=(5,))).fit(torch.randn(2, 6))


def shared() -> Net:
    torch.manual_seed(0)
    twice = nn.Sequential(nn.Linear(5, 5), nn.ReLU())
    return Net.from_sequential(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), twice, twice, nn.Linear(5, 3)))


@pytest.mark.parametrize("rule", RULES)
def test_weights_that_blocks_share_are_stepped_once(rule):
    trainer = rule(shared())
    assert trainer.fit(rows(), epochs=1).status == "completed"
    for phase in trainer.phases():
        assert len(set(phase.parameters)) == len(phase.parameters)


@pytest.mark.parametrize("rule", [MonoForward, ForwardForward, ScalableForwardForward])
def test_greedy_refuses_weights_that_blocks_share(rule):
    with pytest.raises(Unsupported, match="blocks share weights; use schedule=joint"):
        rule(shared(), schedule="greedy")


class Branching(nn.Module):
    """Looks at values to decide what to do."""

    def forward(self, h):
        return 2 * h if h.sum() > 0 else h


@pytest.mark.parametrize("layer", [Branching(), nn.BatchNorm1d(5, momentum=None)], ids=["branching", "cumulative"])
def test_likelihood_ratio_refuses_layers_that_cannot_run_on_all_copies_at_once(layer):
    net = Net.from_sequential(nn.Sequential(nn.Linear(6, 5), layer, nn.ReLU(), nn.Linear(5, 3)))
    with pytest.raises(
        Unsupported, match=r"runs all copies at once, by torch.func.vmap, which block 1 of this Net does"
    ):
        LikelihoodRatio(net)
    assert Backprop(net).fit(rows(), epochs=1).status == "completed"


def test_to_look_whether_copies_can_run_leaves_no_trace():
    net = MLP(6, 3, widths=(5,), norm="batch", dropout=0.5)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    LikelihoodRatio.supports(net)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())
