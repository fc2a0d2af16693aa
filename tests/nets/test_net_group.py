"""Consecutive blocks made one: the same net, from every block alone to backprop."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from localearn import MLP, Backprop, Block, ForwardForward, LeNet, MonoForward, Net, UserError, load, load_net
from localearn.defaults import CONF
from localearn.files import read_yaml
from localearn.inputs import InputSpec
from localearn.options import parameters_of
from localearn.training.building import build_net, locate
from localearn.trust import is_known


def gradients(rule, batch) -> dict[int, Any]:
    rule.zero_grad()
    torch.manual_seed(3)
    rule.gradients(batch)
    return {id(p): p.grad for p in rule.net.parameters()}


@pytest.mark.parametrize("n", [1, 2, 3, 100])
@pytest.mark.parametrize("training", [True, False])
def test_a_grouped_net_is_the_same_net_to_the_bit(small, n, training):
    net, batch = small().train(training), small.batch()
    grouped = net.group(n)
    assert grouped.depth == -(-net.depth // n)
    assert {id(p) for p in grouped.parameters()} == {id(p) for p in net.parameters()}
    assert type(grouped) is type(net) and grouped.kind == net.kind and repr(grouped.view) == repr(net.view)
    assert all(module.training == training for module in grouped.modules())
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(0)
    expected = net(batch.x, *batch.context)
    net.load_state_dict(before)  # running statistics
    torch.manual_seed(0)
    assert torch.equal(grouped(batch.x, *batch.context), expected)
    ends = list(range(n - 1, net.depth, n)) + ([net.depth - 1] if net.depth % n else [])
    assert grouped.shapes == tuple(net.shapes[k] for k in ends)
    assert (grouped.shapes, grouped.classes) == grouped.dry_run()
    assert grouped.widths == tuple(net.widths[k] for k in ends) and grouped.reads == tuple(net.reads[k] for k in ends)


def test_with_all_blocks_in_one_group_a_local_rule_has_backprops_gradient_of_its_head(small):
    net, batch = small().double(), small.batch(torch.float64)
    one = net.group(net.depth)
    assert one.depth == 1
    expected, found = gradients(Backprop(net), batch), gradients(MonoForward(one), batch)
    assert expected.keys() == found.keys()
    for p in net.parameters():
        torch.testing.assert_close(found[id(p)], expected[id(p)], rtol=1e-6, atol=1e-12)
    alone = gradients(MonoForward(net), batch)
    assert any(not torch.allclose(alone[id(p)], expected[id(p)]) for p in net.blocks.parameters())


def test_no_gradient_passes_from_one_group_to_the_one_before_it(small):
    net, batch = small().double(), small.batch(torch.float64)
    if small.name == "denoiser":
        net.eval()  # for in training it draws noise anew in each pass
    grouped = net.group(2)
    rule = MonoForward(grouped)
    own = gradients(rule, batch)
    for k in range(grouped.depth):
        rule.zero_grad()
        h = grouped.hidden(batch.x, *batch.context, depth=k).detach()
        rule.block_loss(k, grouped.block(k)(h, *batch.context), batch).backward()
        for p in grouped.block(k).parameters():
            torch.testing.assert_close(own[id(p)], p.grad, rtol=1e-9, atol=1e-12)


def test_groups_of_groups_are_larger_groups():
    net = MLP(6, 3, widths=[5] * 7)
    twice = net.group(2).group(2)
    assert (twice.depth, twice.grouped) == (2, 4)
    x = torch.randn(3, 6)
    assert torch.equal(twice(x), net(x))
    assert net.depth == 7 and net.grouped == 1


def test_a_groups_pre_activation_is_that_of_its_last_block():
    net = MLP(6, 3, widths=(5, 4))
    block = net.group(2).block(0)
    assert block.post is net.block(1).post
    x = torch.randn(3, 6)
    assert torch.equal(block.op(x), net.block(1).op(net.block(0)(x)))


def test_a_last_block_with_a_forward_pass_of_its_own_keeps_it():
    class Doubling(Block):
        def forward(self, h, *context):
            return 2 * super().forward(h, *context)

    net = Net([Block(nn.Linear(4, 4)), Doubling(nn.Linear(4, 4), nn.ReLU())], nn.Linear(4, 2), input_shape=(4,))
    x = torch.randn(3, 4)
    assert torch.equal(net.group(2)(x), net(x))


def test_what_is_registered_on_a_grouped_net_stays_with_it():
    net = MLP(6, 3, widths=(5, 4))
    grouped = net.group(2)
    grouped.register_forward_hook(lambda *_: pytest.fail("the hook is the grouped net's"))
    grouped.extra = nn.Linear(2, 2)
    net(torch.randn(2, 6))
    assert not hasattr(net, "extra")
    assert net.state_dict().keys() == {
        f"{p}.{q}" for p in ("blocks.0.op", "blocks.1.op", "readout") for q in ("weight", "bias")
    }


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_groups_of_no_whole_number_are_refused(n):
    with pytest.raises(UserError, match="group must be the number of blocks to merge into one, 1 or more"):
        MLP(6, 3).group(n)


def test_the_label_goes_to_where_the_first_layer_takes_it():
    data = load("digits", train_size=60)
    shape: Any = ForwardForward.input_shape_for(data, "maps")
    net = LeNet(shape, data.classes, channels=(3, 4, 5), hidden=6)
    grouped = net.group(net.depth)
    assert ForwardForward.input_shape(grouped, data) == ForwardForward.input_shape(net, data) == shape
    ForwardForward.supports(grouped, data)


def test_the_option_groups_any_class_but_one_that_takes_it_itself():
    options = {"_target_": "localearn.MLP", "widths": [8, 7, 6], "group": 2}
    net = build_net(options, InputSpec((6,)), 3)
    assert (net.depth, net.grouped, net.widths) == (2, 2, (7, 6))
    assert build_net({**options, "group": 1}, InputSpec((6,)), 3).depth == 3
    for wrong in (0, 1.5, True, "two"):
        with pytest.raises(UserError, match="group must be"):
            build_net({**options, "group": wrong}, InputSpec((6,)), 3)


def test_a_run_with_groups_is_saved_and_reloaded(tiny, read):
    ended = tiny("net.widths=[12,10,8]", "net.group=2", "out=run")
    assert ended.status == 0, ended.err
    assert read.record("run")["config"]["net"]["group"] == 2
    net = load_net("run")
    assert (net.depth, net.widths) == (2, (10, 8))
    assert tiny("net.widths=[12,10,8]", "net.group=0", "out=other").status == 2


def test_a_run_in_one_group_is_backprops(tiny, read):
    for name, options in (("one", ["algo=mono_forward", "net.group=9"]), ("bp", ["algo=backprop"])):
        assert tiny(*options, "optim.lr=0.01", "schedule=constant", f"out={name}").status == 0
    one, bp = (load_net(name) for name in ("one", "bp"))
    for p, q in zip(one.parameters(), bp.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("file", sorted((CONF / "net").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_nets_file_has_the_option_and_its_classs_own(file):
    options = read_yaml(file)
    target = options.pop("_target_")
    assert options.pop("group") == 1
    assert is_known(target)
    assert options.keys() <= parameters_of(locate("net._target_", target)).keys()
    assert file.read_text().startswith("# ")
