"""Heads of a local rule: the suite by each, and their equations."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from localearn import CNN, MLP, Batch, LocalLoss, ResNet, Transformer
from localearn.testing import KINDS, toy
from localearn.testing.probes import train
from localearn.trainers.local.heads import pooling
from tests.helpers.conformance import Suite


def local(net: Any, *arguments: Any, **options: Any) -> Any:
    """Return the rule, whose modules are looked into below."""
    return LocalLoss(net, *arguments, **options)


MAPS = [kind for kind in KINDS if any(len(shape) == 3 for shape in toy(kind).net().shapes)]


class TestConvolution(Suite):
    runs_on = ("cnn",)
    kinds = MAPS
    tasks = ("classes",)  # the others' toys are of other nets, so nothing is asked of them

    def make(self, net):
        return local(net, head="conv")


class TestHiddenLayers(Suite):
    runs_on = ("mlp", "cnn", "tokens")

    def make(self, net):
        return local(net, "pred", head="mlp")


class TestLaterBlocks(Suite):
    runs_on = ("mlp", "cnn", "gcn", "tokens", "resnet")

    def make(self, net):
        return local(net, "pred", head="auglocal")


WIDE = ("mlp", "gcn", "sage", "gat", "transformer", "recurrent", "vit", "mixer")  # whose toys have blocks of one width


class Tied(Suite):
    runs_on = ("mlp", "tokens")
    kinds = WIDE
    tasks = ("classes", "values", "multilabel", "tokens")
    sends_back_weights = True  # those of the readout, which learns with the last block


class TestTied(Tied):
    def make(self, net):
        return local(net, "pred", head="tied")


class TestProjected(Tied):
    def make(self, net):
        return local(net, "pred", head="projected")


class TestLowRank(Tied):
    def make(self, net):
        return local(net, "pred", head="low_rank", rank=2)


class TestNoiseContrastive(Suite):
    runs_on = ("mlp", "tokens")
    tasks = ("classes", "tokens")
    draws_noise = True

    def make(self, net):
        return local(net, "pred", head="nce", noise=32)


def text(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(5, (6, 4), generator=generator)
    return Batch(x, torch.where(x == 0, -100, (x + 1) % 5))


def transformer(layers=3) -> Any:
    torch.manual_seed(0)
    return Transformer((4,), 5, vocabulary=5, layers=layers, width=8, heads=2, expansion=2).double()


def in_sight(net, x):
    """Return what the net's view reads of each block, inputs detached."""
    found, h = [], net.stem(x)
    for block in net.blocks:
        h = block(h.detach())
        found.append(net.view(h))
    return found


@pytest.mark.parametrize("kind", ["tied", "projected", "low_rank"])
def test_a_tied_head_starts_as_the_readout_and_reads_it_as_a_constant(kind):
    net, batch = transformer(), text()
    trainer = local(net, "pred", head=kind, rank=2)
    reads = in_sight(net, batch.x)
    with torch.no_grad():
        assert torch.equal(trainer.heads[0](net.view.view and reads[0]), trainer.heads[1](reads[0]))
    metrics = trainer.gradients(batch)
    for k, read in enumerate(reads):
        expected = F.cross_entropy(net.readout(read).flatten(0, 1), batch.target.flatten())
        torch.testing.assert_close(metrics[f"loss_{k + 1}"], expected.detach())
    # The readout follows the last block's loss alone.
    last = F.cross_entropy(net.readout(reads[-1].detach()).flatten(0, 1), batch.target.flatten())
    (expected,) = torch.autograd.grad(last, net.readout.weight)
    torch.testing.assert_close(net.readout.weight.grad, expected)


def test_adapters_of_the_readout_are_what_they_say():
    net, x = transformer(), torch.randn(2, 4, 8, dtype=torch.float64)
    view = net.view(x)
    w, b = net.readout.weight, net.readout.bias
    projected = local(net, head="projected").heads[0]
    nn.init.normal_(projected.before.weight)
    torch.testing.assert_close(projected(x), view @ (w @ projected.before.weight).T + b)
    low_rank = local(net, head="low_rank", rank=3).heads[0]
    v, u = (low_rank.adapter[i].weight for i in (0, 1))
    nn.init.normal_(u)
    assert (v.shape, u.shape) == ((3, 8), (5, 3))
    torch.testing.assert_close(low_rank(x), view @ (w + u @ v).T + b)
    assert not any(p is w for head in (projected, low_rank) for p in head.parameters())


def test_tied_heads_follow_the_readout_and_a_copy_follows_its_own():
    trainer = local(transformer(), head="tied")
    other = copy.deepcopy(trainer)
    with torch.no_grad():
        other.net.readout.weight.zero_()
        other.net.readout.bias.zero_()
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    assert not other.heads[0](x).any()
    assert trainer.heads[0](x).any()


def test_noise_contrastive_estimation_is_the_papers_sum():
    net, batch = transformer(2), text()
    trainer = local(net, "pred", head="nce", noise=7)
    head = trainer.heads[0]
    nn.init.normal_(head.out.weight)
    nn.init.normal_(head.out.bias)
    h = torch.randn(6, 4, 8, dtype=torch.float64)
    torch.manual_seed(3)
    found = trainer.prediction_loss(0, h, h, batch)
    torch.manual_seed(3)
    others = torch.randint(5, (7,))
    scores = head(h).detach() - math.log(7 / 5)  # against K q(n), q = 1/C
    total, count = 0.0, 0
    for i in range(6):
        for t in range(4):
            y = int(batch.target[i, t])
            if y == -100:
                continue
            count += 1
            total -= torch.log(torch.sigmoid(scores[i, t, y]))
            for n in others:
                total -= torch.log(1 - torch.sigmoid(scores[i, t, n]))
    torch.testing.assert_close(found.detach(), total / count)


def test_noise_contrastive_scores_become_log_probabilities():
    """Of one context: at the minimum over D and b the scores are the logs of the frequencies, up to the draws."""
    torch.manual_seed(0)
    net = MLP(1, 3, widths=(1, 1)).double()
    head = local(net, "pred", head="nce", noise=200).heads[0]
    target = torch.tensor([0] * 6 + [1] * 3 + [2])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    x = torch.zeros(10, 1, dtype=torch.float64)
    for _ in range(400):
        optimizer.zero_grad()
        head.losses(x, target).mean().backward()
        optimizer.step()
    # 200 draws leave each score with a deviation below 0.05 at this rate; alarms by chance below 1e-6.
    torch.testing.assert_close(head.out.bias.exp(), torch.tensor([0.6, 0.3, 0.1]).double(), rtol=0.3, atol=0.0)


def test_auglocal_copies_blocks_at_equal_steps_with_the_last():
    net: Any = MLP(6, 2, widths=(5, 5, 5, 5, 5, 5, 5))
    heads = local(net, head="auglocal", head_depth=3).heads
    assert [len(head.blocks) for head in heads] == [3, 3, 3, 3, 2, 1]

    def chosen(k):
        weights = [block.op.weight for block in net.blocks]
        return [
            next(j for j, w in enumerate(weights) if torch.equal(w, copied.op.weight)) for copied in heads[k].blocks
        ]

    assert (chosen(0), chosen(3), chosen(4)) == ([2, 4, 6], [4, 5, 6], [5, 6])
    assert not any(p is q for p in heads.parameters() for q in net.parameters())
    h = torch.randn(3, 5)
    torch.testing.assert_close(heads[5](h), net.readout(net.block(6)(h)))


def test_auglocal_bridges_what_does_not_fit():
    for net in (
        CNN((1, 8, 8), 2, channels=(4, 6, 8), hidden=(5,)),
        ResNet((1, 8, 8), 2, widths=(4, 6, 8), blocks=1, view="pooled"),
        MLP(64, 2, widths=(5, 7, 6)),
    ):
        trainer = local(net, head="auglocal")
        x = torch.randn(4, *net.input_shape)
        batch = Batch(x, torch.tensor([0, 1, 1, 0]))
        trainer.gradients(batch)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trainer.parameters())


def test_auglocals_own_blocks_learn_and_their_statistics_move_with_the_block():
    trainer = local(toy("cnn").net(), "pred", head="auglocal")
    norm = trainer.heads[0].blocks[0].post[0]
    before = norm.running_mean.clone()
    train(trainer, toy("cnn").batch, 1, 0.01)
    assert not torch.equal(norm.running_mean, before)
    assert any(buffer is norm.running_mean for buffer in trainer.block_tensors(0))


@pytest.mark.parametrize(
    ("shape", "most", "window"),
    [((128, 32, 32), 2048, (8, 8)), ((256, 16, 16), 4096, (4, 4)), ((6, 4, 4), 96, (1, 1)), ((6, 3, 3), 2, (4, 4))],
)
def test_windows_halve_a_map_until_it_is_small_enough(shape, most, window):
    assert pooling(shape, most) == window
