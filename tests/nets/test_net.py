import copy

import pytest
import torch
from torch import nn

from localearn import CNN, GNN, MLP, Block, Net, UserError

GRAPH = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])


def test_a_net_is_stem_blocks_and_readout_of_the_flattened_last_block():
    blocks = [Block(nn.Conv2d(1, 3, 3), nn.ReLU()), Block(nn.Conv2d(3, 2, 3))]
    net = Net(blocks, nn.Linear(2 * 2 * 2, 5), input_shape=(1, 6, 6), stem=nn.Dropout(0.5)).eval()
    x = torch.randn(4, 1, 6, 6)
    h1 = blocks[0].op(x).relu()
    h2 = blocks[1].op(h1)
    torch.testing.assert_close(net(x), net.readout(h2.flatten(1)))
    for h, expected in zip(net.outputs(x), (h1, h2), strict=True):
        torch.testing.assert_close(h, expected)
    for depth, expected in ((0, x), (1, h1), (2, h2), (None, h2)):
        torch.testing.assert_close(net.hidden(x, depth=depth), expected)
    assert (net.depth, net.classes) == (2, 5)
    assert net.shapes == ((3, 4, 4), (2, 2, 2))
    assert net.widths == (48, 8)
    assert net.block(1) is blocks[1]


def test_context_goes_to_every_block_and_not_to_the_readout():
    net = GNN(3, 2, widths=(4, 4), dropout=0.0)
    x = torch.randn(4, 3)
    h = x
    for k in range(2):
        h = net.block(k).op(h, GRAPH).relu()
    torch.testing.assert_close(net(x, GRAPH), net.readout(h))


@pytest.mark.parametrize("training", [True, False])
def test_the_dry_run_leaves_statistics_modes_and_random_state_as_they_were(training):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).train(training)
    layers = [Block(nn.Conv2d(1, 3, 3), nn.Sequential(norm, nn.Dropout(0.5))), Block(nn.Conv2d(3, 2, 3).eval())]
    buffers, state = copy.deepcopy(dict(norm.named_buffers())), torch.get_rng_state()
    readout = nn.Linear(8, 5)
    state = torch.get_rng_state()
    net = Net(layers, readout, input_shape=(1, 6, 6), stem=nn.Dropout(0.5))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, buffers[name]) for name, value in norm.named_buffers())
    assert norm.training == training
    assert not net.block(1).op.training
    assert net.training
    assert net.stem.training
    assert all(p.grad is None for p in net.parameters())


def test_the_dry_run_takes_the_nets_own_dtype_and_device():
    blocks = [Block(nn.Linear(3, 4, dtype=torch.float64, device="meta"))]
    net = Net(blocks, nn.Linear(4, 2, dtype=torch.float64, device="meta"), input_shape=(3,))
    assert net.widths == (4,)


def test_normalisation_without_running_statistics_passes_the_dry_run():
    net = Net([Block(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))], nn.Linear(4, 2), input_shape=(3,))
    assert net.widths == (4,)


@pytest.mark.parametrize(
    ("post", "couples", "couples_evaluated"),
    [
        (nn.BatchNorm2d(4), True, False),
        (nn.BatchNorm2d(4, track_running_stats=False), True, True),
        (nn.GroupNorm(2, 4), False, False),
        (nn.LayerNorm([4, 4, 4]), False, False),
        (nn.InstanceNorm2d(4), False, False),
        (nn.InstanceNorm2d(4, track_running_stats=True), False, False),
        (nn.ReLU(), False, False),
    ],
)
def test_couples_rows_says_whether_a_row_depends_on_others(post, couples, couples_evaluated):
    torch.manual_seed(0)
    net = Net([Block(nn.Conv2d(1, 4, 3), post)], nn.Linear(64, 2), input_shape=(1, 6, 6))
    for training, said in ((True, couples), (False, couples_evaluated)):
        net.train(training)
        assert net.couples_rows() == said
        x = torch.randn(3, 1, 6, 6)
        with torch.no_grad():
            first = net(x)[0]
            x[1:] *= 2
            assert torch.allclose(net(x)[0], first, atol=1e-6) != said


def test_batch_normalisation_held_still_couples_no_rows_while_the_net_trains():
    net = CNN((1, 4, 4), 2, channels=(3,), norm="batch").train()
    assert net.couples_rows()
    net.block(0).post.eval()
    assert not net.couples_rows()


def test_edges_couple_rows():
    assert GNN(3, 2, widths=(4,)).eval().couples_rows()
    assert not MLP(3, 2, widths=(4,)).couples_rows()


def test_a_block_without_post_is_its_op():
    op, x = nn.Linear(3, 4), torch.randn(2, 3)
    torch.testing.assert_close(Block(op)(x), op(x))


def test_what_is_no_net_is_refused():
    with pytest.raises(UserError, match="at least one block before its readout"):
        Net([], nn.Linear(3, 2), input_shape=(3,))
    with pytest.raises(UserError, match="a net's stem must not have parameters"):
        Net([Block(nn.Linear(3, 4))], nn.Linear(4, 2), input_shape=(3,), stem=nn.Linear(3, 3))


@pytest.mark.parametrize(
    "block",
    [
        Block(nn.Linear(5, 4)),  # RuntimeError: another width
        Block(nn.Linear(3, 4), nn.BatchNorm2d(4)),  # ValueError: another number of dimensions
        Block(nn.Linear(3, 4), nn.Flatten(3)),  # IndexError: a dimension that is not there
        Block(nn.Bilinear(3, 3, 4)),  # TypeError: an input that is missing
    ],
    ids=["runtime", "value", "index", "type"],
)
def test_rows_that_the_layers_cannot_take_are_refused_with_their_shape(block):
    with pytest.raises(UserError, match=r"the net cannot take rows of shape \(3,\): "):
        Net([block], nn.Linear(4, 2), input_shape=(3,))
