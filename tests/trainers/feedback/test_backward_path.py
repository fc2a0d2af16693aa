"""What every rule with backward paths keeps to, and what it refuses."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from localearn import (
    CNN,
    GNN,
    MLP,
    Backprop,
    Batch,
    FeedbackAlignment,
    Net,
    ProductFeedbackAlignment,
    ResNet,
    SignSymmetry,
    Trainer,
    Unsupported,
    UserError,
)

RULES = {
    "fa": FeedbackAlignment,
    "usf": SignSymmetry,
    "brsf": lambda net: SignSymmetry(net, "brsf"),
    "frsf": lambda net: SignSymmetry(net, "frsf"),
    "pfa": lambda net: ProductFeedbackAlignment(net, expansion=2),
}


@pytest.fixture(params=list(RULES))
def rule(request):
    return RULES[request.param]


def gradients(trainer: Trainer, batch: Batch) -> dict[str, Tensor]:
    trainer.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    trainer.gradients(batch)
    return {name: p.grad.clone() for name, p in trainer.named_parameters() if p.grad is not None}


def with_weights_changed(trainer: Trainer, batch: Batch) -> dict[str, Tensor]:
    """Return the gradients where every matrix of the net is another, behind torch's back, once the logits are there."""
    trainer = copy.deepcopy(trainer)
    memory = [p.detach().numpy() for p in trainer.net.parameters() if p.dim() > 1]

    def change(*_):
        for values in memory:
            values += 1

    trainer.net.readout.register_forward_hook(change)
    return gradients(trainer, batch)


def test_no_weight_is_read_on_the_way_back(rule, task):
    net, batch = task
    trainer = rule(net)
    plain, changed = gradients(trainer, batch), with_weights_changed(trainer, batch)
    assert plain.keys() == changed.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, changed[name]), name
    backprop = Backprop(net)  # the same change is seen where weights are read
    first = next(name for name, p in backprop.named_parameters() if p.dim() > 1)
    assert not torch.equal(gradients(backprop, batch)[first], with_weights_changed(backprop, batch)[first])


def test_the_readout_and_everything_after_the_last_path_follow_the_true_gradient(rule, task):
    net, batch = task
    true, filled = gradients(Backprop(copy.deepcopy(net)), batch), gradients(rule(net), batch)
    for name in ("net.readout.weight", "net.readout.bias"):
        torch.testing.assert_close(filled[name], true[name], rtol=0, atol=0)


def test_paths_stand_around_every_linear_map_but_the_first(task):
    net, _ = task
    matrices = [
        name
        for name, p in net.named_parameters()
        if p.dim() > 1 and not name.startswith("blocks.0.")  # the first block has one map, or two side by side
    ]
    assert [name for name, _ in FeedbackAlignment(net).named_paths()] == matrices


def hooks_of(net):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [list(getattr(module, kind).values()) for module in net.modules() for kind in kinds]


def test_the_net_stays_as_it_was(rule, some_task):
    net, batch = some_task
    fields, hooks = [(name, sorted(vars(module))) for name, module in net.named_modules()], hooks_of(net)
    trainer = rule(net)
    optimizer = torch.optim.SGD(trainer.parameters(), lr=0.1)
    trainer.gradients(batch)
    optimizer.step()
    assert trainer.net is net
    assert fields == [(name, sorted(vars(module))) for name, module in net.named_modules()]
    assert hooks == hooks_of(net), "but for those that a GNN prepares its edges by"
    reloaded = pickle.loads(pickle.dumps(net.eval()))
    assert torch.equal(reloaded(batch.x, *batch.context), net(batch.x, *batch.context))


def test_a_trained_net_is_exported_without_its_rule():
    net, x = MLP((4,), 3, widths=(5, 5)), torch.randn(6, 4)
    FeedbackAlignment(net).gradients(Batch(x, torch.arange(6) % 3))
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))


def test_a_state_round_trips(rule, some_task):
    net, batch = some_task
    trainer, other = rule(copy.deepcopy(net)), rule(net)
    other.load_state_dict(trainer.state_dict())
    one, two = gradients(trainer, batch), gradients(other, batch)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_bfloat16_gradients_are_float32s_roughly(rule, task):
    net, batch = task
    trainer = rule(net)
    exact = gradients(trainer, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = gradients(trainer, batch)
    assert all(gradient.dtype == torch.float32 for gradient in rough.values())
    whole, other = (torch.cat([g[name].flatten() for name in exact]) for g in (exact, rough))
    assert (whole - other).norm() < 0.2 * whole.norm()


def test_what_is_frozen_has_no_gradient_and_changes_no_other(rule, some_task):
    net, batch = some_task
    trainer = rule(net)
    free = gradients(trainer, batch)
    net.block(1).requires_grad_(False)
    frozen = gradients(trainer, batch)
    assert not any(name.startswith("net.blocks.1.") for name in frozen)
    assert all(torch.equal(free[name], gradient) for name, gradient in frozen.items())
    net.requires_grad_(False)
    net.readout.requires_grad_()
    assert {"net.readout.weight", "net.readout.bias"} <= gradients(trainer, batch).keys()


def test_a_net_frozen_in_part_when_the_rule_is_built_gets_all_its_paths(task):
    net, _ = task
    thawed = [name for name, _ in FeedbackAlignment(net).named_paths()]
    net.requires_grad_(False)
    assert [name for name, _ in FeedbackAlignment(net).named_paths()] == thawed
    assert not any(p.requires_grad for p in net.parameters())


def test_two_uses_of_one_weight_share_a_path():
    layer = nn.Linear(5, 5)
    net = Net.from_sequential(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), layer, nn.Tanh(), layer, nn.Linear(5, 3)))
    trainer = FeedbackAlignment(net.double())
    assert [name for name, _ in trainer.named_paths()] == ["blocks.1.op.weight", "readout.weight"]
    for name, path in trainer.named_paths():
        path.get_buffer("feedback").copy_(net.get_parameter(name).detach())
    batch = Batch(torch.randn(6, 4).double(), torch.arange(6) % 3)
    one, two = gradients(trainer, batch), gradients(Backprop(net), batch)
    assert all(torch.allclose(one[name], two[name], rtol=1e-12) for name in two)


@pytest.mark.parametrize(
    "net", [MLP((6,), 3, widths=(8, 8)), CNN((2, 8, 8), 3, channels=(4, 4)), ResNet((3, 8, 8), 3, widths=(4, 8))]
)
def test_a_step_takes_backprops_arithmetic(net):
    batch = Batch(torch.randn(16, *net.input_shape), torch.arange(16) % 3)

    def operations(trainer: Trainer) -> int:
        with FlopCounterMode(display=False) as counter:
            trainer.gradients(batch)
        return counter.get_total_flops()

    backprop = operations(Backprop(net))
    assert operations(FeedbackAlignment(net)) == backprop
    assert operations(SignSymmetry(net)) == backprop
    assert operations(ProductFeedbackAlignment(net, expansion=10)) > backprop


def test_path_angles_name_layers_and_are_degrees(task):
    trainer = FeedbackAlignment(task[0])
    name, path = trainer.named_paths()[0]
    weight = trainer.net.get_parameter(name).detach()
    for factor, angle in ((2.0, 0.0), (-1.0, 180.0)):
        path.get_buffer("feedback").copy_(factor * weight)
        # Near 0 and 180 the arc cosine turns one rounding of float32 into hundredths of a degree.
        assert trainer.path_angles()[name.removesuffix(".weight")].item() == pytest.approx(angle, abs=0.05)


def test_attention_is_refused_because_its_vectors_have_no_path():
    with pytest.raises(Unsupported, match=r"GNN's blocks.0.op.att_src.*gcn or sage"):
        FeedbackAlignment(GNN(5, 3, conv="gat"))


def test_a_matrix_that_is_no_linear_layers_is_refused():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(5, 5))

        def forward(self, h):
            return h @ self.matrix

    net = Net.from_sequential(nn.Sequential(nn.Linear(4, 5), Product(), nn.Linear(5, 3)))
    with pytest.raises(Unsupported, match=r"Net's blocks.1.op.matrix"):
        SignSymmetry(net)


def test_padding_in_words_is_refused():
    layers = (nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, padding="same"), nn.Flatten(), nn.Linear(72, 3))
    with pytest.raises(Unsupported, match=r"blocks.1.op's padding in pixels"):
        FeedbackAlignment(Net.from_sequential(nn.Sequential(*layers), (1, 8, 8)))


@pytest.mark.parametrize("make", [FeedbackAlignment, SignSymmetry])
def test_a_zero_weight_gives_no_scale(make):
    net = MLP((4,), 3, widths=(5,))
    nn.init.zeros_(net.readout.get_parameter("weight"))
    with pytest.raises(UserError, match="all zero"):
        make(net)
