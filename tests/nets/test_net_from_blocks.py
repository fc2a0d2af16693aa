"""A net of anybody's modules: from_blocks, and what is refused before anything is trained."""

import pytest
import torch
from torch import nn

from localearn import Block, InputSpec, MonoForward, Net, PerPosition, Pooled, UserError


def tripled(module, arguments, out: torch.Tensor) -> torch.Tensor:
    return 3 * out


def two(*blocks, stem=None, readout=None, shape=(3,), **options):
    return Net.from_blocks(stem, blocks, readout or nn.Linear(4, 2), input_shape=shape, **options)


def test_modules_become_blocks_that_share_their_parameters():
    stages = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), nn.Conv2d(4, 5, 3), nn.AvgPool2d(2)]
    readout = nn.Linear(5, 2)
    net = Net.from_blocks(nn.Dropout(0.5), stages, readout, input_shape=(3, 8, 8), view=Pooled()).eval()
    x = torch.randn(2, 3, 8, 8)
    expected = readout(stages[2](stages[1](stages[0].eval()(x))).mean((2, 3)))
    torch.testing.assert_close(net(x), expected)
    assert net.block(0).op is stages[0][0] and [type(layer) for layer in net.block(0).post.children()] == [
        nn.BatchNorm2d,
        nn.ReLU,
    ]
    assert net.block(1).op is stages[1] and net.block(2).op is stages[2]
    assert {id(p) for p in net.parameters()} == {id(p) for m in (*stages, readout) for p in m.parameters()}


def test_a_block_stays_itself_and_no_stem_is_the_identity():
    block = Block(nn.Linear(3, 4), nn.ReLU())
    net = two(block)
    assert net.block(0) is block and isinstance(net.stem, nn.Identity)


@pytest.mark.parametrize("first", [nn.Linear(5, 4), Block(nn.Linear(5, 4), nn.ReLU())])
def test_a_stem_with_parameters_learns_with_the_first_block(first):
    stem = nn.Linear(3, 5)
    net = two(first, stem=stem)
    assert net.depth == 1 and not list(net.stem.parameters())
    x = torch.randn(2, 3)
    torch.testing.assert_close(net(x), net.readout(first(stem(x))))
    learned = {id(p) for p in MonoForward(net).block_parameters(0)}
    assert {id(p) for p in stem.parameters()} <= learned


def test_a_stem_before_a_block_with_a_forward_pass_of_its_own():
    class Doubling(Block):
        def forward(self, h, *context):
            return 2 * super().forward(h, *context)

    stem, block = nn.Linear(3, 5), Doubling(nn.Linear(5, 4))
    x = torch.randn(2, 3)
    net = two(block, stem=stem)
    torch.testing.assert_close(net(x), net.readout(block(stem(x))))


def test_what_a_sequential_computes_is_not_changed_by_where_it_is_cut():
    several = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4))
    starts_bare = nn.Sequential(nn.ReLU(), nn.Linear(4, 4))
    hooked = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    hooked.register_forward_hook(tripled)
    net = two(several, starts_bare, hooked)
    assert [net.block(k).op for k in range(3)] == [several, starts_bare, hooked]


def test_layers_write_over_no_input():
    act = nn.ReLU(inplace=True)
    net = two(nn.Sequential(nn.Linear(3, 4), act))
    assert not act.inplace
    z = net.block(0).op(torch.randn(2, 3))
    kept = z.clone()
    net.block(0).post(z)
    assert torch.equal(z, kept)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    assert not any(getattr(m, "inplace", False) for m in Net.from_sequential(model).modules())


def test_ids_and_positions():
    takes = InputSpec((5,), vocabulary=11)
    net = Net.from_blocks(
        None, [nn.Embedding(11, 4), nn.Linear(4, 4)], nn.Linear(4, 11), takes=takes, view=PerPosition()
    )
    assert net(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 11)


def test_the_shapes_of_a_nets_rows_say_which_recipes_it_has():
    assert two(nn.Linear(3, 4)).kind == "dense"
    assert two(nn.Conv2d(3, 4, 3), nn.Flatten(), shape=(3, 3, 3)).kind == "maps"
    assert two(nn.Linear(3, 4), shape=(5, 3), view=PerPosition()).kind == "sequence"
    takes = InputSpec((3,), context=("edge_index",))
    assert Net.from_blocks(None, [OfGraph()], nn.Linear(3, 2), takes=takes).kind == "graph"
    assert Net([Block(nn.Conv2d(3, 4, 3))], nn.Linear(4, 2), input_shape=(3, 3, 3)).kind == "dense"


class OfGraph(nn.Module):
    def forward(self, h, edge_index):
        return h


class Pair(nn.Module):
    def forward(self, h):
        return h, h


class Transposing(nn.Module):
    def forward(self, h):
        return h.T


class Sum(nn.Module):
    def forward(self, h):
        return h.sum(1)


class Doubling(nn.Module):
    def forward(self, h):
        h *= 2
        return h


REFUSED = {
    "a block for other rows": (
        lambda: two(nn.Linear(3, 4), nn.Linear(5, 4)),
        r"block 2 \(Linear\), given rows of shape \(4,\) by block 1: (addmm: )?mat1 and mat2 .*; build it for",
    ),
    "a first block for other rows": (lambda: two(nn.Linear(5, 4)), r"block 1 \(Linear\), given rows of shape \(3,\)"),
    "a tuple": (lambda: two(nn.Linear(3, 4), Pair()), r"block 2 \(Pair\) returns a tuple, .* one tensor"),
    "a recurrent layer's pair": (
        lambda: two(nn.LSTM(3, 4, batch_first=True), shape=(5, 3)),
        r"block 1 \(LSTM\) returns a tuple",
    ),
    "a readout for another width": (
        lambda: two(nn.Linear(3, 5)),
        r"the readout \(Linear\), given what Flattened\(\) reads of block 1's rows of shape \(5,\)",
    ),
    "a readout of a pair": (lambda: two(nn.Linear(3, 4), readout=Pair()), r"the readout \(Pair\) returns a tuple"),
    "a readout of numbers": (
        lambda: two(nn.Linear(3, 4), readout=Sum()),
        r"the readout \(Sum\) returns the shape \(2,\)",
    ),
    "a stem that loses rows": (lambda: two(nn.Linear(3, 4), stem=nn.Flatten(0)), r"the stem returns the shape \(6,\)"),
    "a block that loses rows": (
        lambda: two(nn.Linear(3, 4), Transposing()),
        r"block 2 \(Transposing\) returns the shape \(4, 2\)",
    ),
    "a kernel larger than the image": (
        lambda: two(nn.Conv2d(3, 4, 7), shape=(3, 4, 4)),
        r"block 1 \(Conv2d\).*the image is too small",
    ),
    "an image pooled away": (
        lambda: two(nn.Conv2d(3, 4, 3), nn.MaxPool2d(4), shape=(3, 5, 5)),
        r"block 2 \(MaxPool2d\).*the image is too small",
    ),
    "a block that writes over its input": (
        lambda: two(nn.Linear(3, 4), Doubling()),
        r"block 2 \(Doubling\) modifies its input in place",
    ),
    "no size": (lambda: two(nn.Linear(3, 4), shape=(0,)), r"input_shape must be positive whole numbers, not \(0,\)"),
    "a function": (lambda: two(torch.relu), "block 1 is relu, and a block is an nn.Module"),
    "no block": (two, "at least one block"),
    "no shape": (lambda: Net.from_blocks(None, [nn.Linear(3, 4)], nn.Linear(4, 2)), "input_shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_three_lines_at_most(case):
    build, told = REFUSED[case]
    with pytest.raises(UserError, match=told) as refused:
        build()
    assert len(str(refused.value)) <= 360 and "\n" not in str(refused.value)
