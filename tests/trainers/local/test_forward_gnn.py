"""ForwardGNN against its equations in NumPy: what a step does, what it predicts, and which labels it may see."""

from typing import Any

import numpy as np
import pytest
import torch

import localearn
from localearn import GNN, MLP, ForwardGNN, Unsupported, UserError
from localearn.data import Batch, GraphData
from localearn.tasks import Regression
from localearn.testing import probes, toy
from tests.helpers.conformance import Suite

NODES, FEATURES, CLASSES, WIDTHS = 9, 5, 3, (4, 6)
EDGES = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 0], [1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 0, 8]])
TRAINED = torch.tensor([0, 3, 4, 6, 8])
LABELS = torch.tensor([0, 1, 1, 2, 0])
TEMPERATURE = 0.7


def graph():
    torch.manual_seed(1)
    return Batch(torch.rand(NODES, FEATURES, dtype=torch.float64), LABELS, (EDGES,), TRAINED)


def rule(conv="gcn", temperature=TEMPERATURE, **options) -> Any:
    torch.manual_seed(0)
    net = GNN(FEATURES, CLASSES, widths=WIDTHS, conv=conv, dropout=0.0, heads=2).double()
    return ForwardGNN(net, temperature=temperature, **options)


def sums_over_neighbours(conv):
    """Return what takes (N + C, n) to what a convolution makes its linear map of, by the edges and the virtual ones."""
    n = NODES + CLASSES
    a = np.zeros((n, n))
    for source, target in EDGES.T.tolist():
        a[target, source] = 1
    for node, label in zip(TRAINED.tolist(), LABELS.tolist(), strict=True):
        a[node, NODES + label] = a[NODES + label, node] = 1
    if conv == "gcn":
        a += np.eye(n)
        d = a.sum(1) ** -0.5
        return lambda h: d[:, None] * a * d @ h
    return lambda h: np.concatenate([a @ h / np.maximum(a.sum(1), 1)[:, None], h], axis=1)


def weights(trainer, conv, k):
    op = trainer.net.block(k).op
    maps = [op.lin] if conv == "gcn" else [op.lin_l, op.lin_r]
    bias = op.bias if conv == "gcn" else op.lin_l.bias
    return np.concatenate([m.weight.detach().numpy() for m in maps], axis=1), bias.detach().numpy()


def unit(h):
    return h / (np.linalg.norm(h, axis=1, keepdims=True) + 1e-8)


def softmax(g):
    e = np.exp(g - g.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def by_hand(trainer, conv, k, h):
    """Return loss k, its gradient by W and b, h_{k+1} and G_{k+1}, from h_k with the virtual nodes; derived by hand."""
    a, (w, b) = sums_over_neighbours(conv)(unit(h)), weights(trainer, conv, k)
    z = a @ w.T + b
    out = np.maximum(z, 0)
    g = out[:NODES] @ out[NODES:].T / TEMPERATURE
    of, y = TRAINED.numpy(), LABELS.numpy()
    p = softmax(g[of])
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    e = (p - np.eye(CLASSES)[y]) / len(y) / TEMPERATURE
    d = np.zeros_like(z)
    d[of] = e @ out[NODES:]
    d[NODES:] = e.T @ out[of]
    d *= z > 0
    return loss, d.T @ a, d.sum(0), out, g


def check_gradient(trainer, conv, k, expected):
    op = trainer.net.block(k).op
    maps = [op.lin] if conv == "gcn" else [op.lin_l, op.lin_r]
    bias = op.bias if conv == "gcn" else op.lin_l.bias
    np.testing.assert_allclose(np.concatenate([m.weight.grad for m in maps], 1), expected[0], rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(bias.grad, expected[1], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("conv", ["gcn", "sage"])
def test_a_joint_step_is_that_of_the_equations(conv):
    trainer, batch = rule(conv, schedule="joint"), graph()
    metrics = probes.completed(trainer.gradients(batch))
    h = np.concatenate([batch.x.numpy(), trainer.virtual.numpy()])
    for k in range(2):
        loss, dw, db, h, _ = by_hand(trainer, conv, k, h)
        assert metrics[f"loss_{k + 1}"].item() == pytest.approx(loss, rel=1e-12)
        check_gradient(trainer, conv, k, (dw, db))
        assert np.abs(dw).max() > 1e-4  # or nothing would be told
    assert all(p.grad is None for p in trainer.net.readout.parameters())


@pytest.mark.parametrize("conv", ["gcn", "sage"])
def test_greedy_steps_are_those_of_the_equations(conv):
    trainer, batch = rule(conv), graph()
    h = np.concatenate([batch.x.numpy(), trainer.virtual.numpy()])
    probabilities = 0.0
    labels, *blocks = trainer.phases()
    probes.learn(labels, probes.begun(trainer, labels, batch))
    for k, phase in enumerate(blocks):
        inputs = probes.begun(trainer, phase, batch)
        for _ in range(3):
            loss, dw, db, _, _ = by_hand(trainer, conv, k, h)
            trainer.zero_grad(set_to_none=True)
            assert probes.learn(phase, inputs)["loss"].item() == pytest.approx(loss, rel=1e-12)
            check_gradient(trainer, conv, k, (dw, db))
            torch.optim.SGD(phase.parameters, lr=0.5).step()
        *_, h, g = by_hand(trainer, conv, k, h)
        probabilities = probabilities + softmax(g)
        with torch.no_grad():
            told = phase.predict(inputs.x, *inputs.context).exp()
        np.testing.assert_allclose(told, probabilities, rtol=1e-9)
    with torch.no_grad():
        np.testing.assert_allclose(trainer.predict(batch.x, EDGES).exp(), probabilities, rtol=1e-9)


@pytest.mark.parametrize("conv", ["gcn", "sage", "gat"])
def test_greedy_and_joint_have_the_same_gradient_of_the_first_block(conv):
    batch, found = graph(), []
    for schedule in ("joint", "greedy"):
        trainer = rule(conv, schedule=schedule)
        for phase in trainer.phases()[:2]:
            probes.learn(phase, probes.begun(trainer, phase, batch))
        found.append([p.grad for p in trainer.net.block(0).parameters()])
    assert all(torch.allclose(one, other, rtol=1e-9, atol=1e-13) for one, other in zip(*found, strict=True))


def test_a_class_is_a_node_that_its_training_nodes_see_and_that_sees_them():
    trainer, batch = rule(schedule="joint"), graph()
    trainer.gradients(batch)
    edges = {tuple(edge) for edge in trainer._edges(EDGES, NODES)[:, EDGES.shape[1] :].T.tolist()}
    pairs = zip(TRAINED.tolist(), LABELS.tolist(), strict=True)
    assert edges == {edge for i, c in pairs for edge in ((i, NODES + c), (NODES + c, i))}


def test_only_training_labels_are_read():
    """The same run whatever the labels of nodes held out are, to the bit, but for what they are measured against."""
    x, y = graph().x.float(), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 0])
    nodes: Any = {"train": TRAINED, "val": torch.tensor([1, 2]), "test": torch.tensor([5, 7])}
    other = y.clone()
    other[nodes["test"]] = (y[nodes["test"]] + 1) % CLASSES
    states = []
    for labels in (y, other):
        torch.manual_seed(0)
        trainer = ForwardGNN(GNN(FEATURES, CLASSES, widths=WIDTHS, dropout=0.0))
        trainer.fit(GraphData("nine", x, EDGES, labels, nodes, CLASSES), epochs=3, energy=False)
        states.append(trainer.state_dict())
    assert not probes.differing(*states)
    assert torch.equal(states[0]["known_nodes"], TRAINED)


def test_what_it_knows_is_saved_and_takes_the_size_that_it_had():
    trained, batch = rule(), graph()
    probes.train(trained, batch, 3, 0.1)
    torch.manual_seed(9)
    fresh = ForwardGNN(GNN(FEATURES, CLASSES, widths=WIDTHS, dropout=0.0).double(), temperature=TEMPERATURE)
    fresh.load_state_dict(trained.state_dict())
    assert fresh.known_labels.tolist() == LABELS.tolist()
    with torch.no_grad():
        assert torch.equal(fresh.predict(batch.x, EDGES), trained.predict(batch.x, EDGES))


def test_labels_may_come_in_parts():
    trainer, batch = rule(), graph()
    probes.solve(trainer.phases()[0], *probes.halves(batch))
    assert sorted(zip(trainer.known_nodes.tolist(), trainer.known_labels.tolist(), strict=True)) == sorted(
        zip(TRAINED.tolist(), LABELS.tolist(), strict=True)
    )


def test_refuses_what_has_no_classes_or_no_edges():
    with pytest.raises(Unsupported, match="MLP takes no edges; use algo=mono_forward, or a graph with net=gcn"):
        ForwardGNN(MLP(4, 3))
    with pytest.raises(Unsupported, match=r"virtual node for each class.*use algo=mono_forward"):
        ForwardGNN(GNN(FEATURES, 3).for_task(Regression(3)))
    with pytest.raises(UserError, match="temperature must be positive, not 0"):
        rule(temperature=0.0)


def test_learns_karate_by_its_defaults():
    torch.manual_seed(0)
    data = localearn.load("karate")
    options = localearn.recipe("forward_gnn", "graph")
    net = GNN(data.input_shape, data.classes, widths=(16, 16), **options["net"])
    record = ForwardGNN(net).fit(data, epochs=60, energy=False)
    accuracy = record.metric("accuracy", "test")
    assert accuracy is not None and accuracy > 0.6  # of 4 classes


class TestJointForwardGNN(Suite):
    """All blocks at once, which the README's suite, of the defaults, has not."""

    kinds = ("gcn", "sage", "gat")
    tasks = ("classes",)

    def make(self, net):
        return ForwardGNN(net, schedule="joint")

    def test_gradient_is_of_the_batch_mean(self, kind):
        """Of the mean over the nodes that have a target; a graph beside its copy is another graph here.

        For its classes have twice as many neighbours. So the mean is held by naming each labelled node twice in the
        loss alone.
        """
        batch = probes.moved(toy(kind).batch, dtype=torch.float64)
        trainer: Any = self._made(kind).double()
        h, _ = trainer.first_input(batch)
        trainer.know(batch.index, batch.target)
        index = torch.arange(len(batch.x)) if batch.index is None else batch.index
        twice = Batch(batch.x, batch.target.repeat(2), batch.context, index.repeat(2))
        out = trainer.net.block(0)(h, trainer._edges(batch.context[0], len(batch.x)))
        losses = [trainer.block_loss(0, out, b).item() for b in (batch, twice)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-12)
