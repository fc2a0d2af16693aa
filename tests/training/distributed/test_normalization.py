"""Batch normalisation over ranks, here two that are threads of one process, against torch's over the whole batch."""

import threading

import pytest
import torch
from torch import nn

from localearn import MLP, Backprop, ForwardGradient, load
from localearn.errors import UserError
from localearn.training import Settings
from localearn.training.checks import check
from localearn.training.distributed.normalization import sync_batch_norm, uses_sync_batch_norm

SHARES = (3, 5)  # rows of either rank


class Meeting:
    """Adds tensors up over threads."""

    def __init__(self):
        self.barrier, self.given = threading.Barrier(len(SHARES), timeout=10), {}

    def all_reduce(self, tensor):
        self.given[threading.get_ident()] = tensor.clone()
        self.barrier.wait()
        total = sum(self.given.values())
        self.barrier.wait()
        tensor.copy_(total)


class Alone:
    def all_reduce(self, tensor):
        """One rank's sum is the sum."""


class Holder(Backprop):
    """A rule beside a layer of any kind."""

    def __init__(self, layer):
        super().__init__(MLP((4,), 3, widths=(5,)))
        self.layer = layer


def layer_of(kind, **options):
    torch.manual_seed(0)
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[kind](4, **options).double()
    for p in layer.parameters():
        nn.init.normal_(p)
    return layer


def a_batch(kind):
    torch.manual_seed(1)
    return torch.randn(sum(SHARES), 4, *[3] * (kind - 2)).double() * 2 + 5


def before(x):
    """Return another batch, of other means and variances."""
    return 0.3 * x.flip(1) - 1


OPTIONS = {
    "usual": {},
    "plain": {"affine": False},
    "average": {"momentum": None},
    "forgetful": {"track_running_stats": False},
}


@pytest.mark.parametrize("kind", [2, 3, 4, 5])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_two_ranks_give_what_the_whole_batch_gives(kind, options):
    whole, x = layer_of(kind, **options), a_batch(kind)
    target = torch.randn_like(x)

    def loss(out, target):  # a mean over rows
        return ((out - target).square() * out.sigmoid()).flatten(1).sum(1).mean()

    expected = x.clone().requires_grad_()
    whole(before(x))  # for the running statistics' momentum
    twice = whole(expected)
    loss(twice, target).backward()

    meeting, found = Meeting(), {}
    layers = [layer_of(kind, **options) for _ in SHARES]

    def rank(number, own):
        layer, mine = layers[number], x[own].clone().requires_grad_()
        sync_batch_norm(Holder(layer), meeting)
        layer(before(x)[own])
        out = layer(mine)
        loss(out, target[own]).backward()
        found[number] = (layer, mine.grad, out.detach())

    threads = [threading.Thread(target=rank, args=(n, own)) for n, own in enumerate((slice(0, 3), slice(3, 8)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    share = [n / sum(SHARES) for n in SHARES]
    assert torch.allclose(torch.cat([found[n][2] for n in (0, 1)]), twice)
    torch.testing.assert_close(torch.cat([found[n][1] * share[n] for n in (0, 1)]), expected.grad)
    for name, p in whole.named_parameters():
        joint = torch.stack([share[n] * found[n][0].get_parameter(name).grad for n in (0, 1)]).sum(0)
        torch.testing.assert_close(joint, p.grad)
    for name, buffer in whole.named_buffers():
        for n in (0, 1):
            assert torch.allclose(dict(found[n][0].named_buffers())[name].to(buffer.dtype), buffer), name


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_maps_are_normalised_in_float32(autocast):
    x = a_batch(4).bfloat16()
    whole, own = layer_of(4).float(), layer_of(4).float()
    sync_batch_norm(Holder(own), Alone())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, out = whole(x), own(x)
    assert out.dtype == expected.dtype == torch.bfloat16
    assert torch.allclose(out.float(), expected.float(), atol=0.05)
    assert torch.allclose(own.running_var, whole.running_var, rtol=1e-3)


def test_evaluation_and_undoing_leave_torchs_own():
    layer, x = layer_of(4), a_batch(4)
    undo = sync_batch_norm(Holder(layer), Meeting())  # nobody else comes, so joint statistics would wait in vain
    layer.eval()
    out = layer(x)
    undo()
    assert torch.equal(out, layer(x)) and "forward" not in vars(layer)
    assert torch.equal(layer.train()(x), layer_of(4)(x))


def test_a_single_row_of_all_ranks_is_finite():
    layer = layer_of(2)
    sync_batch_norm(Holder(layer), Alone())
    out = layer(a_batch(2)[:1])
    assert out.isfinite().all() and layer.running_var.isfinite().all()


def test_what_learns_from_its_own_rows_losses_keeps_its_own_statistics():
    net = MLP((4,), 3, widths=(5,), norm="batch")
    assert uses_sync_batch_norm(Backprop(net)) and not uses_sync_batch_norm(ForwardGradient(net))
    assert not uses_sync_batch_norm(Backprop(MLP((4,), 3, widths=(5,))))


def test_a_batch_with_fewer_rows_than_ranks_is_refused():
    data, settings = load("digits", train_size=143), Settings(parallel="data", batch_size=140)
    with pytest.raises(UserError, match=r"on each of 4 ranks.* last of digits's has 3; .*train_size=140"):
        check(Backprop(MLP(data.input_shape, 10, widths=(5,), norm="batch")), data, settings, ranks=4)
    check(Backprop(MLP(data.input_shape, 10, widths=(5,))), data, settings, ranks=4)
