import copy
import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from localearn import CNN, GNN, MLP, Batch, Block, Net, Pepita, Unsupported, UserError, load
from localearn.data import ArrayData
from localearn.data.base import Split
from localearn.testing import toy
from localearn.trainers.feedback.passes import Passes
from localearn.trainers.phases import completed
from tests.helpers.conformance import BASIC, Suite

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def mlp(widths=(7, 5), *, bias=False, dropout=0.0, activation="tanh"):
    torch.manual_seed(0)
    return MLP((6,), 3, widths=widths, bias=bias, dropout=dropout, activation=activation).double()


def batch(n=8):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(3, (n,), generator=generator))


def weights(net):
    return [net.get_parameter(f"blocks.{k}.op.weight") for k in range(net.depth)]


def grads(rule, data):
    rule.zero_grad(set_to_none=True)
    completed(rule.gradients(data))
    return [p.grad.clone() for p in rule.net.parameters()]


def true_gradients(net, data):
    loss = nn.functional.cross_entropy(net(data.x), data.y)
    return torch.autograd.grad(loss, list(net.parameters()))


class TestMirrorConformance(Suite):
    runs_on = ("mlp", "values")
    kinds = ("mlp",)
    tasks = ("classes", "values", "multilabel", "autoencoding")
    draws_noise = True
    steps, lr, learns_to = 400, 0.003, 0.8

    def make(self, net):
        return Pepita(net, mirror=True)


@pytest.mark.parametrize("form", ["difference", "hebbian"])
@pytest.mark.parametrize("kind", ["mlp", "cnn", "gcn"])
def test_no_update_at_zero_error(kind, form):
    """Where p = Y in both passes nothing is modulated and nothing moves."""
    data = toy(kind).batch
    rule = Pepita(toy(kind).net().double(), form=form)

    def sure(module, args, out):
        certain = torch.full_like(out, -1e4)
        labelled = torch.arange(len(out)) if data.nodes is None else data.nodes
        certain[labelled, data.y] = 1e4
        return out - out.detach() + certain

    rule.net.readout.register_forward_hook(sure)
    rule.gradients(Batch(data.x.double(), data.y, data.context, data.nodes))
    for p in rule.parameters():
        assert p.grad is not None
        assert p.grad.abs().max() < 1e-15  # the Hebbian form's two products cancel to rounding


def test_first_order_in_f_is_adaptive_feedback_alignment():
    """h_k - h'_k -> -(d h_k / d x) F e: feedback alignment whose feedback to block k is F^T W_1^T ... W_k^T.

    With D_k the activation's derivatives at z_k, delta_1 = D_1 W_1 (-F e) and delta_k = D_k W_k delta_{k-1}; the update
    is delta_k^T h_{k-1} for the blocks and the true gradient for the readout. The remainder is of second order: it
    falls by 4 when F is halved.
    """
    data, net = batch(), mlp()
    n = len(data.y)

    def remainder(scale):
        rule = Pepita(net, scale=1.0)
        rule.feedback.copy_(scale * torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
        found = grads(rule, data)
        h, delta, expected = data.x, None, []
        error = (torch.softmax(net(data.x), 1) - nn.functional.one_hot(data.y, 3)) / n
        delta = -error @ rule.feedback.T
        for weight in weights(net):
            z = h @ weight.T
            delta = (delta @ weight.T) * (1 - torch.tanh(z) ** 2)
            expected.append(delta.T @ h)
            h = torch.tanh(z)
        size = max(e.abs().max().item() for e in expected)
        return max((f - e).abs().max().item() for f, e in zip(found, expected, strict=False)), size

    (one, size), (half, _), (quarter, _) = remainder(1e-3), remainder(5e-4), remainder(2.5e-4)
    assert one < 1e-2 * size
    assert 3.8 < one / half < 4.2
    assert 3.8 < half / quarter < 4.2
    rule = Pepita(net, scale=1e-9)
    assert torch.allclose(grads(rule, data)[-1], true_gradients(net, data)[-1], rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", ["difference", "hebbian"])
def test_agrees_with_numpy_for_several_steps(form):
    """The paper's equations in NumPy, rows as columns and sample after sample, with plain gradient descent."""
    data, rule = batch(), Pepita(mlp(activation="relu"), scale=2.0, form=form)
    own = [p.detach().numpy().copy() for p in rule.net.parameters()]
    feedback = rule.feedback.numpy()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)

    def forward(x):
        h = [x, np.maximum(own[0] @ x, 0)]
        h.append(np.maximum(own[1] @ h[1], 0))
        o = own[2] @ h[2]
        return h, np.exp(o) / np.exp(o).sum()

    for _ in range(5):
        optimizer.zero_grad()
        rule.gradients(data)
        optimizer.step()
        total = [np.zeros_like(w) for w in own]
        for x, label in zip(data.x.numpy(), data.y.numpy(), strict=True):
            y = np.eye(3)[label]
            h, p = forward(x)
            later, p_later = forward(x + feedback @ (p - y))
            for k in (0, 1):
                if form == "difference":
                    total[k] += np.outer(h[k + 1] - later[k + 1], later[k])
                else:
                    total[k] += np.outer(h[k + 1], h[k]) - np.outer(later[k + 1], later[k])
            if form == "difference":
                total[2] += np.outer(p_later - y, later[2])
            else:
                total[2] += np.outer(p, h[2]) - np.outer(y, later[2])
        for w, t in zip(own, total, strict=True):
            w -= 0.1 * t / len(data.y)
        for p, w in zip(rule.net.parameters(), own, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-10, atol=1e-13)


def test_time_local_form_agrees_with_numpy_for_several_steps():
    """2302.05440's PEPITA-TL: the first pass's product is subtracted before the second pass, which has its own."""
    torch.manual_seed(0)
    net, eta, momentum = MLP((6,), 3, widths=(7, 5), bias=False).double(), 0.1, 0.5
    rule = Pepita(net, scale=2.0, form="time_local")
    own = [p.detach().numpy().copy() for p in net.parameters()]
    velocity, feedback = [np.zeros_like(w) for w in own], rule.feedback.numpy()
    data = ArrayData("rows", dict.fromkeys(SPLITS, batch().x), dict.fromkeys(SPLITS, batch().y), 3)
    optim = functools.partial(torch.optim.SGD, lr=eta, momentum=momentum)
    rule.fit(data, epochs=5, batch_size=8, optim=optim, restore_best=False)

    def forward(x):
        h = [x, np.maximum(x @ own[0].T, 0)]
        h.append(np.maximum(h[1] @ own[1].T, 0))
        o = np.exp(h[2] @ own[2].T)
        return h, o / o.sum(1, keepdims=True)

    def step(products):
        for w, v, product in zip(own, velocity, products, strict=True):
            v *= momentum
            v += product / len(x)
            w -= eta * v

    x, y = batch().x.numpy(), np.eye(3)[batch().y]
    for _ in range(5):
        h, p = forward(x)
        step([h[1].T @ h[0], h[2].T @ h[1], p.T @ h[2]])
        h, _ = forward(x + (p - y) @ feedback.T)
        step([-h[1].T @ h[0], -h[2].T @ h[1], -y.T @ h[2]])
    for p, w in zip(net.parameters(), own, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-9, atol=1e-12)


def test_without_a_step_between_the_passes_the_time_local_form_is_the_hebbian_one():
    together = Pepita(mlp(), form="hebbian")
    in_turn = Pepita(mlp(), form="time_local")
    in_turn.feedback.copy_(together.feedback)
    for one, other in zip(grads(in_turn, batch()), grads(together, batch()), strict=True):
        assert torch.equal(one, other)


def test_convolution_follows_the_authors_loop():
    """The mean over positions of each unpooled difference times its window of x', and the first pass's error."""
    torch.manual_seed(0)
    net = CNN((2, 6, 6), 3, channels=(4,), norm="none").double()
    data = Batch(torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0]))
    rule = Pepita(net, scale=1.0)
    found = dict(zip([name for name, _ in net.named_parameters()], grads(rule, data), strict=True))
    conv = net.block(0).op
    with torch.no_grad():
        error = torch.softmax(net(data.x), 1) - nn.functional.one_hot(data.y, 3)
        x = data.x + (error @ rule.feedback.T).view_as(data.x)
        difference = conv(data.x).relu() - conv(x).relu()
        padded, weight = nn.functional.pad(x, (1, 1, 1, 1)), torch.zeros_like(weights(net)[0])
        for row in range(6):
            for column in range(6):
                window = padded[:, :, row : row + 3, column : column + 3]
                weight += torch.einsum("no,ncij->ocij", difference[:, :, row, column], window) / (36 * 5)
        pooled = nn.functional.max_pool2d(conv(x).relu(), 2).flatten(1)
    torch.testing.assert_close(found["blocks.0.op.weight"], weight)
    torch.testing.assert_close(found["blocks.0.op.bias"], difference.mean((0, 2, 3)))
    torch.testing.assert_close(found["readout.weight"], error.T @ pooled / 5)


def test_both_passes_drop_the_same_units():
    net = mlp((200, 200), dropout=0.5, activation="identity")
    net.train()
    passes, x = Passes(net), batch().x
    (first, _), (second, _) = passes.run(x), passes.run(x)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.activity, other.activity)
        assert 0.4 < (one.activity == 0).double().mean() < 0.6
    fresh, _ = Passes(net).run(x)
    assert not torch.equal(fresh[0].activity, first[0].activity), "another batch has other masks"


def test_a_graphs_input_dropout_is_shared_too():
    data = toy("gcn").batch
    net = GNN(6, 2, widths=(8,), dropout=0.5)
    net.train()
    passes = Passes(net)
    first, second = (passes.run(data.x, *data.context)[0] for _ in range(2))
    assert torch.equal(first[0].activity, second[0].activity)


def test_running_statistics_are_the_first_passs():
    torch.manual_seed(0)
    net, data = toy("cnn").net(), toy("cnn").batch
    plain = copy.deepcopy(net)
    with torch.no_grad():
        plain(data.x)
    Pepita(net, scale=5.0).gradients(data)
    for (name, found), expected in zip(net.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)


def test_update_turns_to_the_true_gradient():
    """After two passes over digits the block's update points along the gradient; at first the two are unrelated."""
    torch.manual_seed(0)
    data = load("digits", normalize="unit")
    everything = next(iter(data.batches("train", data.sizes["train"])))
    rule = Pepita(MLP(data.input_shape, 10, widths=(256,), bias=False), scale=0.5)

    def alignment():
        found, expected = grads(rule, everything)[0], true_gradients(rule.net, everything)[0]
        return nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0).item()

    assert abs(alignment()) < 0.2
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        for rows in data.batches("train", 64):
            optimizer.zero_grad()
            rule.gradients(rows)
            optimizer.step()
    assert alignment() > 0.5


def test_mirror_learns_the_weights():
    """F turns to -(W_o W_2 W_1)^T, keeps its deviation, and leaves what the weights learn from the error alone."""
    net = mlp((40, 30)).float()
    rule = Pepita(net, mirror=True)
    assert rule.mirror is not None
    mirror, (first, second) = rule.mirror, weights(net)
    product = (net.get_parameter("readout.weight") @ second @ first).T.flatten().detach()
    optimizer = torch.optim.SGD(mirror.parameters(), lr=0.1)

    def alignment():
        return nn.functional.cosine_similarity(mirror().flatten(), -product, dim=0).item()

    torch.manual_seed(0)
    assert abs(alignment()) < 0.7
    for _ in range(300):
        mirror.gradients(net, 64)
        optimizer.step()
    assert alignment() > 0.95
    assert mirror().std().item() == pytest.approx(0.05 * (2 / 6) ** 0.5)


class TestTimeLocalConformance(Suite):
    """Its two steps nearly undo each other, and Adam, who scales by their size, makes little of the rest."""

    runs_on = BASIC
    kinds = ("mlp", "cnn", "gcn", "sage")
    tasks = ("classes", "values", "multilabel", "autoencoding")
    steps, lr, learns_to = 600, 0.01, 0.7

    def make(self, net):
        return Pepita(net, scale=0.5 if net.task.has_classes else 0.2, form="time_local")


def test_hebbian_form_learns():
    torch.manual_seed(0)
    data, rule = toy("mlp").batch, Pepita(toy("mlp").net(), form="hebbian")
    optimizer = torch.optim.Adam(rule.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        loss = completed(rule.gradients(data))["loss"]
        optimizer.step()
    assert loss < 0.3


def test_refuses_contradictions():
    net = mlp()
    with pytest.raises(UserError, match="scale must be positive"):
        Pepita(net, scale=0.0)
    with pytest.raises(UserError, match="scale must be a number, not inf"):
        Pepita(net, scale=math.inf)
    with pytest.raises(UserError, match="mirror must be true or false, not 'no'"):
        Pepita(net, mirror="no")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="form must be difference, time_local or hebbian"):
        Pepita(net, form="local")  # pyright: ignore[reportArgumentType]
    with pytest.raises(Unsupported, match=r"mirroring .* CNN .* use net=mlp"):
        Pepita(toy("cnn").net(), mirror=True)


class Residual(Block):
    def forward(self, h, *context):
        return h + super().forward(h, *context)


def test_refuses_what_is_not_one_linear_map():
    residual = Net([Residual(nn.Linear(6, 6), nn.ReLU())], nn.Linear(6, 2), input_shape=(6,))
    with pytest.raises(Unsupported, match=r"block 1 is a Residual, .*use net=mlp"):
        Pepita(residual)
    branch = Net([Block(nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6)))], nn.Linear(6, 2), input_shape=(6,))
    with pytest.raises(Unsupported, match="block 1 is a Sequential"):
        Pepita(branch)
    deep = Net([Block(nn.Linear(6, 6))], nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2)), input_shape=(6,))
    with pytest.raises(Unsupported, match="the readout is a Sequential"):
        Pepita(deep)
    with pytest.raises(Unsupported, match="block 1 is a GATConv"):
        Pepita(toy("gat").net())


def test_refuses_dropout_out_of_reach():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, h):
            return self.drop(h)

    with pytest.raises(Unsupported, match="dropout inside"):
        Pepita(Net([Block(nn.Linear(6, 6), Hidden())], nn.Linear(6, 2), input_shape=(6,)))
