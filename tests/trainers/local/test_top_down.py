"""ForwardGNN's top-down forms against their equations in NumPy: steps, predictions, and what a block reads."""

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import localearn
from localearn import GNN, ForwardGNN, Unsupported, UserError
from localearn.data import links
from localearn.tasks.links import pair_logits
from localearn.testing import probes
from localearn.trainers.local.top_down import BURN_IN
from tests.trainers.local.test_forward_gnn import (
    CLASSES,
    EDGES,
    FEATURES,
    LABELS,
    NODES,
    TEMPERATURE,
    TRAINED,
    TestJointForwardGNN,
    graph,
    softmax,
    sums_over_neighbours,
    unit,
    weights,
)

WIDTHS, PASSES = (4, 6, 5), 4


def rule(conv="gcn", top_down: Any = "input", widths=WIDTHS, **options) -> Any:
    torch.manual_seed(0)
    net = GNN(FEATURES, CLASSES, widths=widths, conv=conv, dropout=0.0, heads=1).double()
    return ForwardGNN(net, "joint", TEMPERATURE, top_down, **{"passes": PASSES, **options})


def labels():
    y = np.full((NODES + CLASSES, CLASSES), 1 / CLASSES)
    y[TRAINED] = np.eye(CLASSES)[LABELS]
    y[NODES:] = np.eye(CLASSES)
    return unit(y)


class ByHand:
    """The blocks of a rule and what they gave in the pass before, from the equations."""

    def __init__(self, trainer, conv):
        self.trainer, self.sums, self.conv = trainer, sums_over_neighbours(conv), conv
        self.x = np.concatenate([graph().x.numpy(), trainer.virtual.numpy()])
        self.told, h = [], self.x
        for k in range(len(WIDTHS)):
            h = self.output(k, h, None)[0]
            self.told.append(unit(h))

    def above(self, k):
        return self.told[k + 1] if k < len(WIDTHS) - 1 else labels()

    def output(self, k, h, above):
        w, b = weights(self.trainer, self.conv, k)
        a = self.sums(unit(h))
        z = a @ w.T + b
        s = None
        if above is not None:
            s = self.sums(above)
            z = z + s @ self.trainer.signals.columns[k].detach().numpy().T
        return np.maximum(z, 0), a, s


def error(rows):
    """Return the loss of (N + C, n) rows, its gradient by them, and the graph's own nodes' class probabilities."""
    g = rows[:NODES] @ rows[NODES:].T / TEMPERATURE
    of, y = TRAINED.numpy(), LABELS.numpy()
    p = softmax(g)
    e = (p[of] - np.eye(CLASSES)[y]) / len(y) / TEMPERATURE
    d = np.zeros_like(rows)
    d[of] = e @ rows[NODES:]
    d[NODES:] = e.T @ rows[of]
    return -np.log(p[of, y]).mean(), d, p


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


def maps(trainer, conv, k):
    op = trainer.net.block(k).op
    return (op.lin,) if conv == "gcn" else (op.lin_l, op.lin_r)


@pytest.mark.parametrize("conv", ["gcn", "sage"])
def test_steps_by_the_input_are_those_of_the_equations(conv):
    trainer, batch = rule(conv), graph()
    hand = ByHand(trainer, conv)
    optimizer = torch.optim.SGD(trainer.phases()[0].parameters, lr=0.5)
    for _ in range(3):
        trainer.zero_grad(set_to_none=True)
        metrics = probes.completed(trainer.gradients(batch))
        h, told = hand.x, list(hand.told)
        for k in range(len(WIDTHS)):
            h, a, s = hand.output(k, h, hand.above(k))
            loss, d, _ = error(h)
            d = d * (h > 0)
            assert metrics[f"loss_{k + 1}"].item() == pytest.approx(loss, rel=1e-12)
            close(np.concatenate([m.weight.grad for m in maps(trainer, conv, k)], 1), d.T @ a)
            close(trainer.signals.columns[k].grad, d.T @ s)
            assert np.abs(d.T @ s).max() > 1e-4  # or nothing would be told
            told[k] = unit(h)
        hand.told = told
        optimizer.step()


def test_a_step_by_the_loss_is_that_of_the_equations():
    trainer, batch = rule(top_down="loss", widths=(4, 4, 4)), graph()
    hand = ByHand(trainer, "gcn")
    optimizer = torch.optim.SGD(trainer.phases()[0].parameters, lr=0.5)
    for _ in range(2):
        trainer.zero_grad(set_to_none=True)
        metrics = probes.completed(trainer.gradients(batch))
        h, told = hand.x, list(hand.told)
        for k in range(3):
            h, a, _ = hand.output(k, h, None)
            merged = (h + sum(hand.told[k + 1 :])) / (3 - k)
            loss, d, _ = error(merged)
            d = d * (h > 0) / (3 - k)
            assert metrics[f"loss_{k + 1}"].item() == pytest.approx(loss, rel=1e-12)
            close(trainer.net.block(k).op.lin.weight.grad, d.T @ a)
            told[k] = unit(h)
        hand.told = told
        optimizer.step()
    with torch.no_grad():
        found = trainer.predict(batch.x, EDGES).exp()
    hand = ByHand(trainer, "gcn")  # one pass, of the weights as they are now
    h, expected = hand.x, 0.0
    for k in range(3):
        h, _, _ = hand.output(k, h, None)
        expected = expected + error((h + sum(hand.told[k + 1 :])) / (3 - k))[2]
    close(found, expected)


def test_a_prediction_is_that_of_the_passes_that_count():
    trainer, batch = rule(), graph()
    probes.train(trainer, batch, 3, 0.05)
    hand, expected = ByHand(trainer, "gcn"), 0.0
    for t in range(PASSES):
        h = hand.x
        for k in range(len(WIDTHS)):
            h, _, _ = hand.output(k, h, hand.above(k))
            hand.told[k] = unit(h)
            expected = expected + (error(h)[2] if t >= BURN_IN else 0)
    with torch.no_grad():
        close(trainer.predict(batch.x, EDGES).exp(), expected)
        last = list(trainer.hidden_states(batch.x, EDGES))[-1]
    close(last, h[:NODES])


def test_attention_is_of_both_inputs_side_by_side():
    """A GAT's block is the same convolution with a wider map, in output and gradient."""
    trainer, batch = rule("gat"), graph()
    trainer.gradients(batch)
    trainer.zero_grad(set_to_none=True)
    h, above = torch.randn(NODES + CLASSES, 4).double(), torch.randn(NODES + CLASSES, 5).double()
    op, columns = trainer.net.block(1).op, trainer.signals.columns[1]
    wide: Any = copy.deepcopy(op)
    wide.lin.weight = torch.nn.Parameter(torch.cat([op.lin.weight, columns], 1).detach())
    edges = trainer._edges(EDGES, NODES)
    found = trainer.signals.block(trainer.net.block(1), 1, h, edges)(above)
    expected = wide(torch.cat([h, above], 1), edges).relu()
    assert torch.allclose(found, expected, rtol=1e-12)
    found.square().sum().backward()
    expected.square().sum().backward()
    grads, expected = torch.cat([op.lin.weight.grad, columns.grad], 1), wide.lin.weight.grad
    assert expected is not None and torch.allclose(grads, expected, rtol=1e-9) and grads[:, 4:].abs().max() > 0


@pytest.mark.parametrize(("conv", "top_down"), [("gcn", "input"), ("gat", "input"), ("gcn", "loss")])
def test_a_block_reads_what_others_gave_before_and_none_of_their_weights(conv, top_down):
    trainer, batch = rule(conv, top_down, (4, 4, 4)), graph()
    probes.train(trainer, batch, 2, 0.05)
    plain = probes.gradients_of(trainer, batch)
    names = dict(trainer.named_parameters())
    for k in range(3):
        other = copy.deepcopy(trainer)
        with torch.no_grad():
            for name in names:
                if any(f".{kind}.{j}" in name for kind in ("blocks", "columns") for j in range(k + 1, 3)):
                    other.get_parameter(name).add_(1)
        moved = probes.gradients_of(other, batch)
        mine = [n for n in plain if f"net.blocks.{k}." in n or n.endswith(f"columns.{k}")]
        assert mine and all(torch.equal(plain[n], moved[n]) for n in mine)
    # It does read what they gave: signals that are others make another gradient.
    with torch.no_grad():
        trainer.signals.stored_3.copy_(trainer.signals.stored_3.roll(1, 0))
    other = probes.gradients_of(trainer, batch)
    assert any(not torch.equal(plain[n], other[n]) for n in plain if "net.blocks.1." in n)


def test_stored_signals_are_saved_and_loaded():
    trainer, batch = rule(), graph()
    probes.train(trainer, batch, 3, 0.05)
    fresh = rule()
    with torch.no_grad():
        fresh.virtual.add_(1)
    fresh.gradients(batch)  # has summed over other virtual nodes, and stored other outputs
    fresh.load_state_dict(trainer.state_dict())
    fresh.zero_grad(set_to_none=True)
    assert not probes.differing(probes.gradients_of(trainer, batch), probes.gradients_of(fresh, batch))


def test_links_are_told_by_blocks_that_see_those_above_them():
    torch.manual_seed(0)
    data = links(width=8)
    net = GNN(data.input_shape, 8, widths=(8, 8), dropout=0.0).for_task(data.task)
    trainer = ForwardGNN(net, schedule="joint", top_down="input")
    before = copy.deepcopy(trainer.signals)
    trainer.fit(data, epochs=150, optim=partial(torch.optim.Adam, lr=0.02), restore_best=False, energy=False)
    assert before is not None and trainer.signals is not None
    moved = [not torch.equal(a, b) for a, b in zip(before.columns, trainer.signals.columns, strict=True)]
    assert moved == [True, False]  # above the last there is nothing
    batch = next(data.batches("train", 1))
    with torch.no_grad():
        z = batch.select(trainer.predict(batch.x, *batch.context))
    assert z.shape[1:] == (2, (10 - BURN_IN) * 2, 8)
    assert roc_auc_score(batch.target, pair_logits(z)) > 0.85


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ForwardGNN(GNN(4, 3), top_down="input"), UserError, "top_down=input reads these; use schedule=joint"),
        (lambda: rule(passes=2), UserError, "passes must be more than the 2 that do not count, not 2; try 10"),
        (lambda: rule(top_down="loss"), Unsupported, r"blocks of one width.*\(4, 6, 5\); use top_down=input"),
        (lambda: rule(top_down="loss", widths=(4,)), Unsupported, "needs a block above another"),
        (lambda: rule().pipelined(), UserError, "blocks read those above them; use top_down=none"),
        (
            lambda: ForwardGNN(GNN(4, 3, widths=(6, 6)).group(2), "joint", top_down="input"),
            Unsupported,
            "Chain is none that is known here; use net=gcn, sage or gat with net.group=1",
        ),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_learns_karate():
    torch.manual_seed(0)
    data = localearn.load("karate")
    net = GNN(data.input_shape, data.classes, widths=(16, 16), dropout=0.0)
    record = ForwardGNN(net, schedule="joint", top_down="input").fit(data, epochs=60, energy=False)
    accuracy = record.metric("accuracy", "test")
    assert accuracy is not None and accuracy > 0.6  # of 4 classes


class TestTopDownForwardGNN(TestJointForwardGNN):
    """The suite on the form whose blocks read others; the other form's is the same but for the loss."""

    runs_on = ("gcn", "gat")
    local = False  # it reads what the blocks above it gave in the pass before

    def make(self, net):
        return ForwardGNN(net, schedule="joint", top_down="input")

    def test_learns_its_task(self, kind, precision):
        """Well below chance; not below blocks as they were drawn, for the last is shown the labels that it learns."""
        batch, made = self._toy(kind).batch, self._made(kind)
        loss = probes.loss_of(probes.train(made, batch, self.steps, self._lr(kind), precision), batch)
        assert loss < self.learns_to * probes.chance("loss", self._toy(kind).data.task, batch)


del TestJointForwardGNN  # which runs where it is defined
