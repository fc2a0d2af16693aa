"""Local losses: their equations in NumPy, what is read where, and that they are backprop in one group."""

import copy
import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import localearn
from localearn import (
    CNN,
    GNN,
    MLP,
    Backprop,
    Batch,
    Block,
    LocalLoss,
    MonoForward,
    Net,
    Regression,
    ResNet,
    Transformer,
    Unsupported,
    UserError,
)
from localearn.testing import toy
from localearn.testing.probes import gradients_of
from localearn.trainers.local.local_loss import similarity
from tests.helpers.conformance import Suite


def local(net: Any, *arguments: Any, **options: Any) -> Any:
    """Return the rule, whose modules are looked into below."""
    return LocalLoss(net, *arguments, **options)


class TestSimilarityAlone(Suite):
    runs_on = ("mlp", "cnn", "sage", "tokens", "autoencoding")
    tasks = ("classes", "multilabel", "tokens", "autoencoding")
    steps = 120

    def make(self, net):
        return local(net, "sim")


class TestPredictionAndGreedy(Suite):
    runs_on = ("mlp", "cnn", "gcn")

    def make(self, net):
        return local(net, "pred", schedule="greedy")


def rows(n=6, features=5, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(classes, (n,), generator=generator))


def drawn(trainer, scale=0.4, seed=3):
    """Give every parameter a random value, those that start from zero too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in trainer.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return trainer


def cosines(z):
    """Return S, the unit rows, and their lengths, of z without each row's own mean."""
    centred = z - z.mean(1, keepdims=True)
    length = np.sqrt((centred**2).sum(1, keepdims=True))
    return centred / length @ (centred / length).T, centred / length, length


@pytest.mark.parametrize("loss", ["pred", "sim", "predsim"])
def test_steps_agree_with_numpy_straight_from_the_equations(loss):
    """Two blocks of an MLP; beta lies on the similarity, and the readout is the last head."""
    batch, eta = rows(), 0.3
    trainer = drawn(local(MLP(5, 3, widths=(6, 4), activation="tanh").double(), loss, beta=0.9))
    of_pred, of_sim = {"pred": (1, 0), "sim": (0, 1), "predsim": (1 - 0.9, 0.9)}[loss]
    own = {name: p.detach().numpy().copy() for name, p in trainer.named_parameters()}
    y = np.eye(3)[batch.y.numpy()]
    target = cosines(y)[0]
    optimizer = torch.optim.SGD(trainer.parameters(), lr=eta)
    for _ in range(4):
        optimizer.zero_grad()
        metrics = trainer.gradients(batch)
        optimizer.step()
        h = batch.x.numpy()
        for k in range(2):
            w, b = own[f"net.blocks.{k}.op.weight"], own[f"net.blocks.{k}.op.bias"]
            head = "net.readout" if k else "heads.0.1"
            z = h @ w.T + b
            a = np.tanh(z)
            da, total, steps = np.zeros_like(a), 0, {}
            if loss != "sim" or k == 1:
                # By sim the readout learns beside, from the block's output as it is.
                weight = of_pred if loss != "sim" else 1
                o = a @ own[f"{head}.weight"].T + own[f"{head}.bias"]
                p = np.exp(o - o.max(1, keepdims=True))
                p /= p.sum(1, keepdims=True)
                total += weight * -np.log(p[np.arange(6), batch.y.numpy()]).mean()
                e = weight * (p - y) / 6
                steps[f"{head}.weight"], steps[f"{head}.bias"] = e.T @ a, e.sum(0)
                da += e @ own[f"{head}.weight"] if loss != "sim" else 0
            if loss != "pred":
                name = f"similarities.{k}.weight"
                s, unit, length = cosines(a @ own[name].T)
                total += of_sim * ((s - target) ** 2).mean()
                d_unit = of_sim * 4 * (s - target) @ unit / 36
                d_centred = (d_unit - unit * (unit * d_unit).sum(1, keepdims=True)) / length
                d_z = d_centred - d_centred.mean(1, keepdims=True)
                steps[name] = d_z.T @ a
                da += d_z @ own[name]
            delta = da * (1 - a**2)
            steps[f"net.blocks.{k}.op.weight"], steps[f"net.blocks.{k}.op.bias"] = delta.T @ h, delta.sum(0)
            np.testing.assert_allclose(metrics[f"loss_{k + 1}"], total, rtol=1e-10)
            for name, step in steps.items():
                own[name] = own[name] - eta * step
            h = a
    for name, p in trainer.named_parameters():
        np.testing.assert_allclose(p.detach(), own[name], rtol=1e-9, atol=1e-13, err_msg=name)


def convolved(x, w, b: Any = 0.0):
    """Return a 3x3 convolution of (N, C, H, W) that keeps the map, from its definition."""
    n, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((n, len(w), height, width))
    for i, j in itertools.product(range(3), range(3)):
        out += np.einsum("nchw,oc->nohw", padded[:, :, i : i + height, j : j + width], w[:, :, i, j])
    return out + np.reshape(b, (1, -1, 1, 1))


def test_a_convolutions_gradients_are_those_of_the_equations_by_differences():
    """Its map before pooling: D of its average over windows, and the deviation over places of a convolution of it."""
    generator = torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(5, 2, 4, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0]))
    net = CNN((2, 4, 4), 3, channels=(4, 5), norm="none", activation="leaky_relu", pool=2).double()
    trainer = drawn(local(net, "predsim", beta=0.8, head_width=16))
    trainer.gradients(batch)
    own = {name: p.detach().numpy().copy() for name, p in trainer.named_parameters()}
    y, target = batch.y.numpy(), cosines(np.eye(3)[batch.y.numpy()])[0]

    def loss_1():
        z = convolved(batch.x.numpy(), own["net.blocks.0.op.weight"], own["net.blocks.0.op.bias"])
        a = np.where(z > 0, z, 0.01 * z)
        read = a.reshape(5, 4, 2, 2, 2, 2).mean((3, 5)).reshape(5, 16)  # 64 values are more than 16, in 2x2 windows
        o = read @ own["heads.0.1.weight"].T + own["heads.0.1.bias"]
        pred = (np.log(np.exp(o).sum(1)) - o[np.arange(5), y]).mean()
        reduced = convolved(a, own["similarities.0.weight"]).reshape(5, 4, 16).std(2, ddof=1)
        return 0.2 * pred + 0.8 * ((cosines(reduced)[0] - target) ** 2).mean()

    names = ("net.blocks.0.op.weight", "net.blocks.0.op.bias", "heads.0.1.weight", "heads.0.1.bias")
    for name in (*names, "similarities.0.weight"):
        found = trainer.get_parameter(name).grad.numpy().ravel()
        flat = own[name].ravel()  # a view, so that the differences below change `own`
        for index in range(0, len(flat), max(1, len(flat) // 7)):
            kept = flat[index]
            sides = []
            for step in (1e-6, -1e-6):
                flat[index] = kept + step
                sides.append(loss_1())
            flat[index] = kept
            np.testing.assert_allclose(found[index], (sides[0] - sides[1]) / 2e-6, rtol=1e-5, atol=1e-9, err_msg=name)


def test_beta_lies_on_the_similarity():
    """The trap: 0.99 is the similarity's part, and 0.01 the prediction's."""
    net, batch = toy("mlp").net(), toy("mlp").batch
    trainer = drawn(local(net))
    assert (trainer.loss, trainer.beta) == ("predsim", 0.99)
    metrics = trainer.gradients(batch)
    for k in (1, 2):
        expected = 0.01 * metrics[f"pred_{k}"] + 0.99 * metrics[f"sim_{k}"]
        torch.testing.assert_close(metrics[f"loss_{k}"], expected)
        assert not torch.isclose(metrics[f"pred_{k}"], metrics[f"sim_{k}"])
    pred = local(copy.deepcopy(net), "pred")
    pred.load_state_dict({n: v for n, v in trainer.state_dict().items() if not n.startswith("similarities")})
    pred.gradients(batch)
    torch.testing.assert_close(trainer.heads[0][1].weight.grad, 0.01 * pred.heads[0][1].weight.grad)
    torch.testing.assert_close(trainer.net.readout.weight.grad, 0.01 * pred.net.readout.weight.grad)


def test_similarities_of_labels_are_one_in_a_class_and_less_than_nothing_across():
    found = similarity(F.one_hot(torch.tensor([2, 0, 2]), 3).double())
    expected = torch.tensor([[1, -0.5, 1], [-0.5, 1, -0.5], [1, -0.5, 1]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    constant = similarity(torch.ones(2, 4, requires_grad=True))
    assert torch.equal(constant, torch.zeros(2, 2))


def test_a_dead_map_and_rows_without_direction_leave_gradients_finite():
    trainer = local(CNN((1, 4, 4), 2, channels=(4, 6), norm="none"), "sim")
    with torch.no_grad():
        trainer.net.block(0).op.bias.fill_(-100)
    trainer.gradients(toy("cnn").batch)
    assert all(p.grad.isfinite().all() for p in trainer.parameters())


def test_losses_read_what_stands_before_dropout_and_pooling():
    net: Any = CNN((1, 4, 4), 2, channels=(4, 4), dropout=0.5, dropout_of="channels")
    assert isinstance(net.block(0).post[-1], nn.Dropout2d)
    trainer = local(net)
    assert trainer.similarities[1](torch.zeros(1, 4, 2, 2)).shape == (1, 4, 2, 2)
    told = []
    for seed in range(2):
        torch.manual_seed(seed)
        told.append(trainer.gradients(toy("cnn").batch))
    assert told[0]["loss_1"] == told[1]["loss_1"]
    assert told[0]["loss_2"] != told[1]["loss_2"]
    a, h = trainer.activities[0](toy("cnn").batch.x)
    assert (a.shape[2:], h.shape[2:]) == ((4, 4), (2, 2))


def test_a_linear_head_reads_so_many_values_at_most():
    net = CNN((3, 32, 32), 10, channels=(8, 16), pool=[1, 2], hidden=(12,))
    heads = local(net, head_width=2048).heads
    # 8 x 32 x 32 halved in height and width; 16 x 32 x 32, before the pooling, in height, width and height.
    assert [head[0].window for head in heads] == [(2, 2), (4, 2)]
    assert [head[1].in_features for head in heads] == [2048, 2048]
    assert local(MLP(6, 2, widths=(9, 4)), head_width=2).heads[0][1].in_features == 9
    assert local(ResNet((1, 8, 8), 2, widths=(4, 6), blocks=1, view="pooled")).heads[0][1].in_features == 4


def test_in_one_group_the_prediction_is_backprop():
    for make in (lambda: MLP(5, 3, widths=(6, 4)), lambda: GNN(5, 3, widths=(6, 4), dropout=0.0)):
        torch.manual_seed(0)
        net = make().double().group(2)
        batch = rows()
        if net.graph:
            ring = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
            batch = Batch(batch.x, batch.y[:4], (ring,), torch.arange(4))
        found, true = gradients_of(local(net, "pred"), batch), gradients_of(Backprop(net), batch)
        assert {name.partition("/")[2] for name in found} == {name.partition("/")[2] for name in true}
        for name, value in found.items():
            torch.testing.assert_close(value, next(v for n, v in true.items() if n.endswith(name.partition("/")[2])))


def test_linear_heads_without_more_are_mono_forwards():
    net, batch = MLP(5, 3, widths=(6, 4)).double(), rows()
    ours = local(net, "pred")
    theirs: Any = MonoForward(copy.deepcopy(net))
    with torch.no_grad():
        theirs.projections[0].weight.copy_(ours.heads[0][1].weight.normal_())
        ours.heads[0][1].bias.zero_()
    ours.gradients(batch)
    theirs.gradients(batch)
    for p, q in zip(ours.net.parameters(), theirs.net.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_what_is_compared_of_positions_leaves_padding_aside():
    batch = toy("tokens").batch
    trainer = local(toy("tokens").net(), "sim")
    a = torch.randn(48, 2, 12)
    counted = batch.target != -100
    z = trainer.similarities[0](a)
    z = trainer.net.view(z)[counted]
    expected = F.mse_loss(similarity(z), similarity(F.one_hot(batch.target[counted], 2).float()))
    torch.testing.assert_close(trainer.similarity_loss(0, a, batch), expected)


def test_by_itself_it_compares_what_has_a_direction():
    assert local(MLP(6, 3, widths=(5,))).loss == "predsim"
    assert local(MLP(6, 1, widths=(5,)).for_task(Regression())).loss == "pred"
    assert local(MLP(6, 2, widths=(5,)).for_task(Regression(2))).loss == "predsim"
    assert local(toy("tokens").net()).loss == "pred"


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda: local(MLP(6, 1).for_task(Regression()), "sim"), Unsupported, "has one value; use loss=pred"),
        (lambda: local(MLP(6, 2), head="conv"), Unsupported, "convolves maps, and MLP has none; use head=linear"),
        (lambda: local(MLP(6, 2, widths=(5, 4)), head="tied"), Unsupported, r"differ in width \(4, 5\); use head="),
        (lambda: local(MLP(6, 2).for_task(Regression(2)), head="nce"), Unsupported, "has none; use head=linear"),
        (lambda: local(MLP(6, 2), "sim", schedule="greedy"), Unsupported, "no scores before .*use schedule=joint"),
        (lambda: local(MLP(6, 2), head="tied", schedule="greedy"), Unsupported, "use schedule=joint"),
        (lambda: local(MLP(6, 2), head="tied").pipelined(), UserError, "use head=linear"),
        (lambda: local(MLP(6, 2), beta=1.5), UserError, r"beta.* in \[0, 1\], not 1.5"),
        (lambda: local(MLP(6, 2), head_depth=0), UserError, "head_depth must be 1 or more, not 0"),
    ],
)
def test_what_it_does_not_serve_is_refused_with_what_works(make, kind, told):
    with pytest.raises(kind, match=told):
        make()


def test_a_block_of_a_class_of_its_own_is_read_at_its_end():
    class Whole(Block):
        def forward(self, h, *context):
            return super().forward(h, *context) + 1

    net = Net([Whole(nn.Linear(6, 4), nn.Dropout(0.5))], nn.Linear(4, 2), input_shape=(6,))
    a, h = local(net).activities[0](torch.zeros(3, 6))
    assert a is h


def test_it_learns_digits_better_than_a_linear_map():
    data = localearn.load("digits", train_size=600)
    torch.manual_seed(0)
    net = MLP(data.input_shape, 10, widths=(64, 64), norm="batch", activation="leaky_relu")
    optim = functools.partial(torch.optim.Adam, lr=0.005)
    record = local(net).fit(data, epochs=12, batch_size=64, optim=optim, energy=False, progress=False)
    assert (record.metric("accuracy", "test") or 0) > 0.9  # the seed is fixed; chance is 0.1


def test_a_transformer_of_a_text_has_a_head_at_each_position():
    net = Transformer((4,), 5, vocabulary=5, layers=2, width=8, heads=2)
    trainer = local(net)
    h = torch.randn(3, 4, 8)
    assert trainer.head_output(0, h, h).shape == (3, 4, 5)
