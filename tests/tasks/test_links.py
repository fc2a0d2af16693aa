"""Link prediction: the task's figures, and the rules that learn it."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss, roc_auc_score

from localearn import GNN, Backprop, CaFo, DirectFeedbackAlignment, ForwardGNN, LinkPrediction, MonoForward, Unsupported
from localearn.data import links
from localearn.tasks import read_task
from localearn.tasks.links import pair_logits
from localearn.testing import probes

TASK = LinkPrediction(5)


def ends(*shape):
    torch.manual_seed(2)
    return torch.randn(40, 2, *shape, dtype=torch.float64), (torch.rand(40) < 0.5).float()


def test_losses_are_those_of_the_product_of_the_ends():
    z, y = ends(5)
    o = (z[:, 0] * z[:, 1]).sum(1).numpy()
    expected = np.log1p(np.exp(o)) - y.numpy() * o
    np.testing.assert_allclose(TASK.losses(z, y), expected, rtol=1e-12)
    assert TASK.mean_loss(z, y).item() == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_figures_are_scikit_learns(shape):
    z, y = ends(*shape)
    p = (z[:, 0] * z[:, 1]).sum(-1).sigmoid()
    p = p if p.dim() == 1 else p.mean(1)  # of several predictors
    sums, count = TASK.measure(z, y)
    found = TASK.finish({name: value / count for name, value in sums.items()}, z, y)
    assert found["auc"].item() == pytest.approx(roc_auc_score(y, p), rel=1e-12)
    assert found["log_loss"].item() == pytest.approx(log_loss(y, p), rel=1e-9)
    assert found["accuracy"].item() == ((p > 0.5) == (y > 0.5)).double().mean().item()
    assert torch.allclose(pair_logits(z).sigmoid().squeeze(1), p, rtol=1e-9)


def test_vectors_of_other_widths_are_pooled_by_their_own_products():
    one, other = torch.randn(6, 3), torch.randn(6, 5)
    pooled = TASK.pool([one, other])
    assert pooled.shape == (6, 2, 5)
    products = torch.stack([(one[0] * one[1]).sum(), (other[0] * other[1]).sum()])
    assert torch.allclose((pooled[0] * pooled[1]).sum(-1), products)


def test_the_task_is_read_back_from_a_record():
    assert read_task("run.json", TASK.describe()) == TASK


@pytest.mark.parametrize("rule", [Backprop, MonoForward, DirectFeedbackAlignment, ForwardGNN])
def test_rules_that_serve_it_learn_it(rule):
    torch.manual_seed(0)
    data = links(width=8)
    options = {"dropout": 0.0, "readout": "linear"}
    net = GNN(data.input_shape, 8, widths=(16, 8), **options).for_task(data.task)
    trainer = rule(net)
    adam = partial(torch.optim.Adam, lr=0.02)
    record = trainer.fit(data, epochs=150, optim=adam, restore_best=False, energy=False)
    batch = next(data.batches("train", 1))
    with torch.no_grad():
        z = batch.select(trainer.predict(batch.x, *batch.context))
    assert roc_auc_score(batch.target, pair_logits(z)) > (0.7 if rule is DirectFeedbackAlignment else 0.85)
    assert 0 <= record.metric("auc", "test") <= 1


def test_forward_gnn_learns_each_block_by_its_own_products():
    """The loss of each greedy phase and its gradient, against autograd of the equations on the convolutions whole."""
    torch.manual_seed(0)
    data = links(width=6)
    net = GNN(data.input_shape, 6, widths=(7, 6), dropout=0.0).for_task(data.task).double()
    trainer = ForwardGNN(net)
    batch = probes.moved(next(data.batches("train", 1)), dtype=torch.float64)
    phases = trainer.phases()
    assert batch.index is not None
    assert [phase.name for phase in phases] == ["block 1", "block 2"]
    h, probabilities = batch.x, []
    for k, phase in enumerate(phases):
        inputs = probes.begun(trainer, phase, batch)
        trainer.zero_grad(set_to_none=True)
        loss = probes.learn(phase, inputs)["loss"]
        out = net.block(k)(h / (h.norm(dim=1, keepdim=True) + 1e-8), *batch.context)
        o = (out[batch.index[:, 0]] * out[batch.index[:, 1]]).sum(1)
        expected = F.binary_cross_entropy_with_logits(o, batch.target.double())
        grads = torch.autograd.grad(expected, list(net.block(k).parameters()))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        for p, grad in zip(net.block(k).parameters(), grads, strict=True):
            assert p.grad is not None and torch.allclose(p.grad, grad, rtol=1e-9, atol=1e-12)
        h = out.detach()
        probabilities.append(o.detach().sigmoid())
        with torch.no_grad():
            told = pair_logits(batch.select(phase.predict(inputs.x, *inputs.context))).squeeze(1).sigmoid()
        assert torch.allclose(told, torch.stack(probabilities).mean(0), rtol=1e-9)


def test_a_rule_that_needs_a_target_of_each_row_refuses():
    net = GNN(4, 5, widths=(6,)).for_task(TASK)
    with pytest.raises(Unsupported, match=r"CaFo needs a target of each row.*use algo=backprop, mono_forward"):
        CaFo(net).check_task(TASK)
