"""Forward-Forward against autograd, against NumPy, and for what each option promises."""

import functools
import math
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import localearn
from localearn import CNN, GNN, MLP, Batch, DeepFM, ForwardForward, Net, Unsupported, UserError
from localearn.data import ArrayData, GraphData, from_arrays
from localearn.nets.conv import LeNet
from localearn.trainers.local import labels
from localearn.trainers.local.normalization import length_normalized, share_off
from localearn.trainers.phases import completed
from tests.marks import slow_but

CLASSES = 3


def mlp(seed=0, widths=(7, 6, 5), features=8):
    torch.manual_seed(seed)
    return MLP(features + CLASSES, CLASSES, widths=widths).double()


def rows(n=6, features=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(0, CLASSES, (n,), generator=generator))


def graph(n=9, features=8):
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(n, features, generator=generator, dtype=torch.float64)
    ring = torch.arange(n)
    edges = torch.stack([torch.cat([ring, (ring + 1) % n]), torch.cat([(ring + 1) % n, ring])])
    return Batch(x, torch.tensor([2, 0, 1, 1]), (edges,), torch.tensor([7, 0, 4, 5]))


@pytest.fixture
def wrong_labels(monkeypatch):
    """Let the wrong label be the one after the true one, so that a second source knows it."""
    monkeypatch.setattr(labels, "uniform_wrong_labels", lambda y, classes: (y + 1) % classes)


def gradients_of(trainer, batch, phase=None):
    trainer.zero_grad(set_to_none=True)
    metrics = completed((phase or trainer).gradients(batch))
    return metrics, {name: p.grad.clone() for name, p in trainer.named_parameters() if p.grad is not None}


def local_losses(net, batch, goodness, threshold, collaboration, edges=()):
    """The blocks' losses, written out, both labels in passes of their own, every input detached."""
    found = []
    for shown in (batch.y, (batch.y + 1) % CLASSES):
        carried = torch.full((len(batch.x), CLASSES), 1 / CLASSES, dtype=torch.float64)
        carried[slice(None) if batch.nodes is None else batch.nodes] = torch.eye(CLASSES, dtype=torch.float64)[shown]
        h = torch.cat([batch.x, carried], 1)
        outputs = []
        for k in range(net.depth):
            h = h.detach()
            h = net.block(k)(h / (h.pow(2).mean(1, keepdim=True).sqrt() + 1e-8), *edges)
            outputs.append(getattr(h.pow(2), goodness)(1)[slice(None) if batch.nodes is None else batch.nodes])
        found.append(outputs)
    losses = []
    for k in range(net.depth):
        others = {"none": [], "previous": range(k), "all": [j for j in range(net.depth) if j != k]}[collaboration]
        true, wrong = (found[i][k] + sum(found[i][j].detach() for j in others) - threshold(k) for i in (0, 1))
        losses.append(-(F.logsigmoid(true).mean() + F.logsigmoid(-wrong).mean()) / 2)
    return losses


@pytest.mark.parametrize("collaboration", ["none", "previous", "all"])
@pytest.mark.parametrize("goodness", ["sum", "mean"])
def test_gradient_is_autograd_of_the_sum_of_the_local_losses(wrong_labels, goodness, collaboration):
    net, batch = mlp(), rows()
    trainer = ForwardForward(
        net, goodness=goodness, collaboration=collaboration, peer_normalization=0.0, prediction="goodness"
    )
    metrics, grads = gradients_of(trainer, batch)
    losses = local_losses(net, batch, goodness, lambda k: net.widths[k] if goodness == "sum" else 2.0, collaboration)
    names, parameters = zip(*net.blocks.named_parameters(), strict=True)
    for name, expected in zip(names, torch.autograd.grad(torch.stack(losses).sum(), parameters), strict=True):
        torch.testing.assert_close(grads[f"net.blocks.{name}"], expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(metrics["loss"], torch.stack(losses).sum().detach(), rtol=1e-12, atol=0)
    for k, loss in enumerate(losses):
        torch.testing.assert_close(metrics[f"loss_{k + 1}"], loss.detach(), rtol=1e-12, atol=0)


def test_on_a_graph_labelled_nodes_carry_their_label_and_all_others_the_neutral_one(wrong_labels):
    torch.manual_seed(0)
    batch = graph()
    net = GNN(8 + CLASSES, CLASSES, widths=(6, 5), dropout=0.0).double()
    trainer = ForwardForward(net, goodness="sum", peer_normalization=0.0, prediction="goodness")
    _, grads = gradients_of(trainer, batch)
    losses = local_losses(net, batch, "sum", lambda k: net.widths[k], "none", batch.context)
    names, parameters = zip(*net.blocks.named_parameters(), strict=True)
    for name, expected in zip(names, torch.autograd.grad(torch.stack(losses).sum(), parameters), strict=True):
        torch.testing.assert_close(grads[f"net.blocks.{name}"], expected, rtol=1e-12, atol=1e-14)


class SecondSource:
    """Forward-Forward of ReLU blocks in NumPy, from the equations: gradients by hand, momentum, weight decay."""

    def __init__(self, trainer, lr, momentum, decay, readout_lr, readout_decay):
        own = {name: p.detach().numpy().copy() for name, p in trainer.named_parameters()}
        depth = trainer.net.depth
        self.w = [own[f"net.blocks.{k}.op.weight"] for k in range(depth)]
        self.b = [own[f"net.blocks.{k}.op.bias"] for k in range(depth)]
        self.r = [*(own[f"projections.{i}.weight"] for i in range(depth - 2)), own["net.readout.weight"]]
        self.c = own["net.readout.bias"]
        self.m = [np.full(len(b), 0.5) for b in self.b]
        blocks, readout = [*self.w, *self.b], [*self.r, self.c]
        self.groups = [(blocks, lr, decay), (readout, readout_lr, readout_decay)]
        self.momentum = momentum
        self.velocity = {id(p): np.zeros_like(p) for p in (*blocks, *readout)}

    @staticmethod
    def normalised(h):
        return h / (np.sqrt((h**2).mean(1, keepdims=True)) + 1e-8)

    def step(self, x, y, wrong, strength, scale):
        n, eye = len(x), np.eye(CLASSES)
        grads = {}
        # The readout, from the neutral label.
        h = np.concatenate([x, np.full((n, CLASSES), 1 / CLASSES)], 1)
        read = []
        for w, b in zip(self.w, self.b, strict=True):
            h = np.maximum(self.normalised(h) @ w.T + b, 0)
            read.append(self.normalised(h))
        logits = sum(f @ r.T for f, r in zip(read[1:], self.r, strict=True)) + self.c
        p = np.exp(logits - logits.max(1, keepdims=True))
        error = (p / p.sum(1, keepdims=True) - eye[y]) / n
        for f, r in zip(read[1:], self.r, strict=True):
            grads[id(r)] = error.T @ f
        grads[id(self.c)] = error.sum(0)
        # The blocks, from both labels.
        h = np.concatenate([np.concatenate([x, eye[shown]], 1) for shown in (y, wrong)])
        sign = np.repeat([-1.0, 1.0], n)
        for k, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            before = self.normalised(h)
            h = np.maximum(before @ w.T + b, 0)
            logit = (h**2).sum(1) - len(b)
            share = sign / (1 + np.exp(-sign * logit)) / (2 * n)  # of d loss / d goodness
            delta = 2 * share[:, None] * h
            m = self.m[k] = 0.9 * self.m[k] + 0.1 * h[:n].mean(0)
            pull = strength if scale == "hinton" else strength * 2 / len(b) * 0.1  # of each row's unit, on or off
            delta[:n] += pull * (m - m.mean()) / n
            grads[id(w)], grads[id(b)] = delta.T @ before, delta.sum(0)
        for parameters, lr, decay in self.groups:
            for p in parameters:
                v = self.velocity[id(p)]
                v *= self.momentum
                v += grads[id(p)] + decay * p
                p -= lr * v


@pytest.mark.parametrize(("scale", "strength"), [("hinton", 0.5), ("port", 3.0)])
def test_several_steps_agree_with_numpy(wrong_labels, scale, strength):
    trainer = ForwardForward(
        mlp(), peer_normalization=strength, peer_scale=scale, readout_lr=0.1, readout_weight_decay=0.03
    )
    (phase,) = trainer.phases()
    optimizer = torch.optim.SGD(phase.optimizer_groups(), lr=0.02, momentum=0.9, weight_decay=0.01)
    second = SecondSource(trainer, 0.02, 0.9, 0.01, 0.1, 0.03)
    for seed in range(6):
        batch = rows(seed=seed)
        optimizer.zero_grad()
        trainer.gradients(batch)
        optimizer.step()
        y = batch.y.numpy()
        second.step(batch.x.numpy(), y, (y + 1) % CLASSES, strength, scale)
    state = trainer.state_dict()
    for k in range(3):
        np.testing.assert_allclose(state[f"net.blocks.{k}.op.weight"], second.w[k], rtol=1e-9)
        np.testing.assert_allclose(state[f"net.blocks.{k}.op.bias"], second.b[k], rtol=1e-9)
        np.testing.assert_allclose(state[f"peers.{k}.running"], second.m[k], rtol=1e-12)
    np.testing.assert_allclose(state["projections.0.weight"], second.r[0], rtol=1e-9)
    np.testing.assert_allclose(state["net.readout.weight"], second.r[1], rtol=1e-9)
    np.testing.assert_allclose(state["net.readout.bias"], second.c, rtol=1e-9)


def test_hard_negatives_are_drawn_from_the_readout(monkeypatch):
    trainer, batch, seen = ForwardForward(mlp(), negatives="hard", prediction="goodness"), rows(), []

    def drawn(y, logits):
        seen.append(logits)
        return (y + 1) % CLASSES

    monkeypatch.setattr(labels, "hard_wrong_labels", drawn)
    metrics, grads = gradients_of(trainer, batch)
    trainer.prediction = "softmax"
    torch.testing.assert_close(seen[0], trainer.predict(batch.x).detach(), rtol=0, atol=0)
    assert "loss_readout" in metrics and "net.readout.weight" in grads
    assert set(trainer.readout_parameters()) <= set(trainer.phases()[0].parameters)


def test_readout_sends_no_gradient_back(wrong_labels):
    alone = gradients_of(ForwardForward(mlp(), prediction="goodness"), rows())[1]
    beside = gradients_of(ForwardForward(mlp()), rows())[1]
    assert set(beside) - set(alone) == {"projections.0.weight", "net.readout.weight", "net.readout.bias"}
    for name, grad in alone.items():
        assert torch.equal(grad, beside[name])


def test_goodness_prediction_is_that_of_every_label_over_the_later_blocks():
    trainer, batch = ForwardForward(mlp(), prediction="goodness").eval(), rows()
    expected = torch.zeros(len(batch.x), CLASSES, dtype=torch.float64)
    for label in range(CLASSES):
        one_hot = F.one_hot(torch.full_like(batch.y, label), CLASSES)
        h = torch.cat([batch.x, one_hot.double()], 1)
        for k in range(3):
            h = trainer.net.block(k)(length_normalized(h))
            if k:
                expected[:, label] += h.pow(2).sum(1)
    torch.testing.assert_close(trainer.predict(batch.x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("collaboration", ["previous", "all"])
def test_the_first_block_predicts_too_where_blocks_collaborate(collaboration):
    batch = rows()
    alone, together = (
        ForwardForward(mlp(), collaboration=name, prediction="goodness").predict(batch.x)
        for name in ("none", collaboration)
    )
    first = ForwardForward(mlp(), prediction="goodness").block_scores(batch.x, start=0, stop=1)
    torch.testing.assert_close(together, alone + first, rtol=1e-12, atol=0)


def test_one_block_predicts_with_itself():
    for prediction in ("softmax", "goodness"):
        trainer, batch = ForwardForward(mlp(widths=(6,)), prediction=prediction), rows()
        trainer.gradients(batch)
        assert trainer.predict(batch.x).shape == (6, CLASSES)


def test_greedy_trains_a_block_at_a_time_and_the_readout_on_fixed_features(wrong_labels):
    trainer, batch = ForwardForward(mlp(), schedule="greedy", readout_lr=0.1), rows()
    phases = trainer.phases()
    assert [phase.name for phase in phases] == ["block 1", "block 2", "block 3", "readout"]
    assert [phase.width for phase in phases] == [None, None, None, 6 + 5]
    joint = gradients_of(ForwardForward(mlp()), batch)[1]
    for index in range(3):
        _, grads = gradients_of(trainer, batch, phases[index])
        assert set(grads) == {f"net.blocks.{index}.op.weight", f"net.blocks.{index}.op.bias"}
        for name, grad in grads.items():  # of a block whose inputs have not changed: the joint schedule's
            torch.testing.assert_close(grad, joint[name], rtol=1e-12, atol=1e-15)
    features = phases[3].input(batch.x)
    assert features.shape == (6, 6 + 5)
    _, grads = gradients_of(trainer, Batch(features, batch.y), phases[3])
    for name in ("projections.0.weight", "net.readout.weight", "net.readout.bias"):
        torch.testing.assert_close(grads[name], joint[name], rtol=1e-12, atol=1e-15)
    assert torch.equal(phases[3].predict(features), trainer.predict(batch.x))
    with pytest.raises(ValueError, match="h_0"):
        trainer.block_scores(features, start=1, stop=2)
    assert phases[3].groups == ({"params": list(phases[3].parameters), "lr": 0.1},)


@pytest.mark.parametrize(
    "options",
    slow_but(
        [
            {},
            {"prediction": "goodness"},
            {"goodness": "mean"},
            {"goodness": "mean", "prediction": "goodness"},
            {"negatives": "hard", "prediction": "goodness"},
            {"collaboration": "all", "prediction": "goodness"},
            {"schedule": "greedy"},
            {"schedule": "greedy", "collaboration": "previous", "prediction": "goodness"},
        ],
        {},
        {"collaboration": "all", "prediction": "goodness"},
    ),
)
def test_learns_the_digits(options):
    data = localearn.load("digits", normalize="unit")
    torch.manual_seed(0)
    trainer = ForwardForward(MLP(data.input_shape, data.classes, widths=(64, 64)), **options)
    record = trainer.fit(data, epochs=12, batch_size=32, optim=functools.partial(torch.optim.Adam, lr=0.005))
    assert record.test_accuracy is not None and record.test_accuracy > 0.8


class Saved:
    """A tensor that a graph holds for its backward pass."""

    def __init__(self, tensor):
        self.tensor = tensor


@pytest.mark.parametrize("collaboration", ["none", "previous", "all"])
def test_what_a_step_holds_does_not_grow_with_depth(collaboration):
    """But for collaboration=all, whose docstring says that it does."""
    most = {}
    for depth in (3, 12):
        trainer = ForwardForward(mlp(widths=(8,) * depth), collaboration=collaboration, prediction="goodness")
        held = weakref.WeakSet()

        def save(tensor, held=held, depth=depth):
            saved = Saved(tensor)
            held.add(saved)
            most[depth] = max(most.get(depth, 0), sum(kept.tensor.numel() for kept in held))
            return saved

        with torch.autograd.graph.saved_tensors_hooks(save, lambda saved: saved.tensor):
            trainer.gradients(rows())
    assert most[12] > 3 * most[3] if collaboration == "all" else most[12] == most[3]


def test_bf16_gradients_are_near_those_of_fp32(wrong_labels):
    """The neutral pass, which has no graph, must not leave autocast's casts of the weights to the pass that has one."""
    torch.manual_seed(0)
    trainer = ForwardForward(MLP(11, CLASSES, widths=(32, 32)))
    batch = Batch(torch.randn(16, 8), torch.randint(0, CLASSES, (16,)))
    _, exact = gradients_of(trainer, batch)
    with torch.autocast("cpu", torch.bfloat16):
        _, rough = gradients_of(trainer, batch)
    assert exact.keys() == rough.keys()
    for name, grad in exact.items():
        assert F.cosine_similarity(grad.flatten(), rough[name].flatten(), dim=0) > 0.99, name


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"goodness": "max"}, "sum or mean"),
        ({"negatives": "easy"}, "uniform or hard"),
        ({"collaboration": "next"}, "none, all or previous"),
        ({"prediction": "bp"}, "softmax or goodness"),
        ({"schedule": "both"}, "joint or greedy"),
        ({"threshold": 0.0}, "positive"),
        ({"threshold": math.nan}, "a number or null, not nan"),
        ({"threshold": math.inf}, "a number or null, not inf"),
        ({"peer_normalization": -0.1}, "0 .none. or more"),
        ({"peer_normalization": math.nan}, "a number, not nan"),
        ({"readout_lr": -0.1}, "readout_lr must be 0 or more, or null"),
        ({"readout_weight_decay": -0.1}, "readout_weight_decay must be 0 or more, or null"),
        ({"schedule": "greedy", "negatives": "hard"}, "negatives=uniform"),
        ({"schedule": "greedy", "collaboration": "all"}, "collaboration=previous"),
    ],
)
def test_refuses_options_with_what_would_work(options, hint):
    with pytest.raises(UserError, match=hint):
        ForwardForward(mlp(), **options)


@pytest.mark.parametrize("collaboration", ["all", "previous"])
def test_refuses_a_collaboration_of_one_block(collaboration):
    with pytest.raises(UserError, match=f"collaboration={collaboration} needs other blocks.*use none"):
        ForwardForward(MLP(6, 3, widths=(4,)), collaboration=collaboration)


def test_refuses_an_input_without_room_and_a_single_class():
    with pytest.raises(Unsupported, match="build it for 3 more"):
        ForwardForward(MLP(3, 3, widths=(4,)))
    with pytest.raises(Unsupported, match="one class"):
        ForwardForward(MLP(3, 1, widths=(4,)))


def vectors(shape):
    x, y = torch.rand(12, *shape), torch.arange(12) % CLASSES
    return ArrayData("rows", dict.fromkeys(("train", "val", "test"), x), dict.fromkeys(("train", "val", "test"), y), 3)


@pytest.mark.parametrize(
    ("shape", "build", "wanted"),
    [
        ((5,), lambda shape: MLP(shape, 3, widths=(4,)), (8,)),
        ((1, 4, 4), lambda shape: MLP(shape, 3, widths=(4,)), (1, 4, 4)),
        ((2, 4, 4), lambda shape: CNN(shape, 3, channels=(4,)), (5, 4, 4)),
    ],
)
def test_says_which_rows_a_net_should_take(shape, build, wanted):
    data = vectors(shape)
    assert ForwardForward.input_shape(build(shape), data) == wanted
    assert ForwardForward.input_shape_for(data, build(shape).kind) == wanted
    assert localearn.MonoForward.input_shape(build(shape), data) == shape
    trainer = ForwardForward(build(wanted), prediction="goodness")
    ForwardForward.supports(trainer.net, data)
    batch = next(data.batches("train", 12))
    trainer.gradients(batch)
    assert trainer.predict(batch.x).shape == (12, CLASSES)
    with pytest.raises(Unsupported, match=str(wanted[0])):
        ForwardForward.supports(build((shape[0] + 1, *shape[1:])), data)


def test_a_graph_s_net_takes_the_label_too():
    batch = graph()
    assert batch.nodes is not None
    data = GraphData("ring", batch.x.float(), batch.context[0], torch.zeros(9).long(), {"train": batch.nodes}, CLASSES)
    assert ForwardForward.input_shape(GNN(8, CLASSES), data) == (8 + CLASSES,)
    assert ForwardForward.input_shape_for(data, "graph") == (8 + CLASSES,)


def test_the_net_alone_is_an_ordinary_module():
    trainer = ForwardForward(mlp())
    trainer.gradients(rows())
    assert isinstance(trainer.net, Net)
    copy = mlp(seed=1)
    copy.load_state_dict(trainer.net.state_dict())
    x = torch.randn(2, 8 + CLASSES, dtype=torch.float64)
    assert torch.equal(copy(x), trainer.net(x))
    assert math.isfinite(copy(x).sum().item())


@pytest.mark.parametrize("more", [0, 3])
def test_a_stem_that_pads_takes_a_label_written_over_its_rows_or_beside_them(more):
    trainer = ForwardForward(LeNet((2 + more, 8, 8), 3, channels=[4, 6], kernel_size=3, hidden=5))
    batch = Batch(torch.randn(4, 2, 8, 8), torch.tensor([0, 1, 2, 0]))
    assert trainer.gradients(batch)["loss"].isfinite()
    assert trainer.eval().predict(batch.x).shape == (4, 3)


def test_peers_pull_as_the_goodness_does_summed_or_averaged(wrong_labels):
    """With the mean of squares a unit's own gradient is n times as small, and so is its peers'."""
    grads = {}
    for goodness in ("sum", "mean"):
        for strength in (0.0, 0.5):
            trainer = ForwardForward(
                mlp(), goodness=goodness, threshold=1.0, peer_normalization=strength, prediction="goodness"
            )
            trainer.gradients(rows())
            grads[goodness, strength] = trainer.net.block(0).op.get_parameter("weight").grad
    pulls = {goodness: grads[goodness, 0.5] - grads[goodness, 0.0] for goodness in ("sum", "mean")}
    width = mlp().widths[0]
    torch.testing.assert_close(pulls["mean"] * width, pulls["sum"])
    assert pulls["sum"].abs().max() > 1e-4


def test_the_share_of_units_that_are_off_is_told(wrong_labels):
    trainer = ForwardForward(mlp())
    with torch.no_grad():
        bias = trainer.net.block(1).op.get_parameter("bias")
        bias[:3] = -1e3
        bias[3:] = 1e3
    metrics = trainer.gradients(rows())
    width = trainer.net.widths[1]
    assert metrics["off_2"].item() == pytest.approx(3 / width)
    assert {f"off_{k}" for k in (1, 2, 3)} <= metrics.keys()


def test_a_channel_is_off_where_no_place_of_no_row_turns_it_on():
    h = torch.zeros(2, 3, 2, 2)
    h[1, 2, 0, 1] = 0.1
    assert share_off(h).item() == pytest.approx(2 / 3)
    assert share_off(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).item() == 0.5


def test_a_run_whose_units_are_off_is_warned_once(caplog):
    x = torch.randn(64, 6)
    data = from_arrays(x, (x[:, 0] > 0).long(), x, (x[:, 0] > 0).long(), normalize="none")
    net = MLP((8,), 2, widths=(8, 8))
    with torch.no_grad():
        net.block(1).op.get_parameter("bias").fill_(-1e3)
    ForwardForward(net).fit(data, epochs=3, energy=False, progress=False)
    told = [record.getMessage() for record in caplog.records if "0 for every row of a batch" in record.getMessage()]
    assert len(told) == 1
    assert "block 2 100 %" in told[0]


def coded(n=6):
    """Rows of two codes and a value, with their labels."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.stack([torch.randint(size, (n,), generator=generator) for size in (5, 4)], 1)
    x = torch.cat([codes.double(), torch.randn(n, 1, generator=generator, dtype=torch.float64)], 1)
    return Batch(x, torch.arange(n) % CLASSES)


def test_codes_are_looked_up_as_they_are_and_values_and_label_are_normalised(wrong_labels):
    torch.manual_seed(0)
    net = DeepFM((3 + CLASSES,), CLASSES, categories=(5, 4), dim=3, widths=(6,)).double()
    trainer, batch = ForwardForward(net, goodness="mean", peer_normalization=0), coded()
    metrics, grads = gradients_of(trainer, batch)
    expected = []
    for shown, sign in ((batch.y, -1), ((batch.y + 1) % CLASSES, 1)):
        values = torch.cat([batch.x[:, 2:], F.one_hot(shown, CLASSES).double()], 1)
        rms = values.square().mean(1, keepdim=True).sqrt()
        h = net.block(0)(torch.cat([batch.x[:, :2], values / (rms + 1e-8)], 1))
        expected.append(F.softplus(sign * (h.square().mean(1) - 2)).mean())
    torch.testing.assert_close(metrics["loss_1"], sum(expected) / 2, rtol=1e-6, atol=0)
    looked_up = {*batch.x[:, 0].long().tolist(), *(5 + batch.x[:, 1].long()).tolist()}
    moved = grads["net.blocks.0.op.vectors.weight"].abs().sum(1).nonzero().flatten().tolist()
    assert set(moved) == looked_up and len(looked_up) < 9


def test_labels_are_not_written_over_codes():
    batch = coded()
    rows: dict = dict.fromkeys(("train", "val", "test"), torch.cat([batch.x, batch.x[:, 2:]], 1))
    data = ArrayData("table", rows, dict.fromkeys(rows, batch.y), CLASSES, categories=(5, 4))

    def net(columns):
        return DeepFM((columns,), CLASSES, categories=(5, 4), dim=3, widths=(6,))

    assert ForwardForward.input_shape_for(data, "dense") == (4 + CLASSES,)
    ForwardForward.supports(net(4 + CLASSES), data)
    with pytest.raises(Unsupported, match="would write its labels over table's codes; build DeepFM for 3 columns more"):
        ForwardForward.supports(net(4), data)
