"""What the rules share: the error, following a signal, staying with the net's dtype, device and frozen layers."""

import inspect
import subprocess
import sys
import typing

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from localearn import (
    MLP,
    Backprop,
    Batch,
    DirectFeedbackAlignment,
    ForwardGradient,
    MonoForward,
    Net,
    Unsupported,
    UserError,
)
from localearn.data import ArrayData
from localearn.records import Record
from localearn.testing import toy
from localearn.testing.probes import gradients_of, moved
from localearn.trainers import LocalTrainer, Trainer
from localearn.trainers.base import accumulate_grad, cross_entropy, output_error

RULES = {
    "backprop": Backprop,
    "mono_forward": MonoForward,
    "greedy": lambda net: MonoForward(net, schedule="greedy"),
    "direct_feedback_alignment": DirectFeedbackAlignment,
    "weight": lambda net: ForwardGradient(net, space="weight", tangents=2),
    "activity": lambda net: ForwardGradient(net, space="activity", tangents=2),
}


@pytest.fixture(params=RULES)
def rule(request):
    return RULES[request.param]


def test_the_output_error_is_softmax_minus_one_hot_over_the_labelled_rows():
    logits = torch.randn(5, 3, dtype=torch.float64)
    batch = Batch(torch.zeros(5, 1), torch.tensor([2, 0]), (), torch.tensor([4, 1]))
    loss, error = output_error(logits, batch)
    expected = torch.zeros_like(logits)
    expected[[4, 1]] = (logits[[4, 1]].softmax(1) - F.one_hot(batch.y, 3)) / 2
    torch.testing.assert_close(error, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(loss, cross_entropy(logits, batch))
    assert not loss.requires_grad
    assert not logits.requires_grad


def test_following_a_signal_adds_its_product_and_skips_what_is_frozen():
    layer, x, delta = nn.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2)
    accumulate_grad(layer(x), delta)
    accumulate_grad(layer(x), delta)
    torch.testing.assert_close(layer.weight.grad, 2 * delta.T @ x)
    layer.requires_grad_(False).zero_grad()
    accumulate_grad(layer(x), delta)
    assert layer.weight.grad is None


@pytest.mark.parametrize("kind", ["mlp", "cnn", "sage"])
def test_a_rule_built_on_a_float64_net_owns_float64_tensors(rule, kind):
    trainer = rule(toy(kind).net().double())
    assert {t.dtype for t in trainer.state_dict().values() if t.is_floating_point()} == {torch.float64}
    gradients = gradients_of(trainer, moved(toy(kind).batch, dtype=torch.float64))
    assert {grad.dtype for grad in gradients.values()} == {torch.float64}


def test_a_rule_built_on_a_net_elsewhere_is_there(rule):
    trainer = rule(toy("mlp").net().to("meta"))
    assert all(t.is_meta for t in trainer.state_dict().values())


@pytest.mark.parametrize("frozen", ["blocks.0", "blocks", "readout", "blocks.0.op.bias"])
def test_what_is_frozen_gets_no_gradient_and_stops_nobody(rule, frozen):
    net = toy("mlp").net()
    for name, p in net.named_parameters():
        p.requires_grad_(not name.startswith(frozen))
    trainer = rule(net)
    filled = {name.split("/")[1] for name in gradients_of(trainer, toy("mlp").batch)}
    trained = {name for name, p in trainer.named_parameters() if p.requires_grad}
    assert filled == trained
    assert {p for phase in trainer.phases() for p in phase.parameters} == {
        p for p in trainer.parameters() if p.requires_grad
    }


def test_data_of_another_shape_or_number_of_classes_are_refused(rule):
    x, y = torch.zeros(4, 6), torch.zeros(4, dtype=torch.long)
    splits = ("train", "val", "test")
    net = MLP(7, 2, widths=(3,))
    with pytest.raises(Unsupported, match=r"MLP takes rows of shape \(7,\), and boxes has \(6,\)"):
        type(rule(net)).supports(net, ArrayData("boxes", dict.fromkeys(splits, x), dict.fromkeys(splits, y), 2))
    net = MLP(6, 2, widths=(3,))
    with pytest.raises(Unsupported, match="MLP has 2 classes, and boxes 3"):
        type(rule(net)).supports(net, ArrayData("boxes", dict.fromkeys(splits, x), dict.fromkeys(splits, y), 3))


class Plain(LocalTrainer):
    """A local rule without heads of its own."""

    def block_loss(self, k, h, batch):
        return h.square().mean()


def test_a_local_rule_without_heads_predicts_by_the_readout_and_only_after_the_last_block():
    net, x = toy("mlp").net(), toy("mlp").batch.x
    torch.testing.assert_close(Plain(net).predict(x), net(x))
    greedy = Plain(net, "greedy")
    first, last = greedy.phases()
    with pytest.raises(UserError, match="Plain has no scores before its last block; use schedule=joint"):
        first.predict(x)
    torch.testing.assert_close(last.predict(net.block(0)(x)), net(x))


def test_a_local_rule_refuses_an_unknown_schedule():
    with pytest.raises(UserError, match="schedule must be joint or greedy, not 'both'"):
        MonoForward(toy("mlp").net(), schedule="both")  # pyright: ignore[reportArgumentType]


def test_batch_normalisation_in_float64_passes_an_estimator():
    model = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.PReLU(), nn.Linear(5, 2))
    trainer = ForwardGradient(Net.from_sequential(model.double()), space="activity")
    trainer.gradients(moved(toy("mlp").batch, dtype=torch.float64))
    assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in model.parameters())


def test_fit_of_a_rule_says_what_it_takes_and_gives():
    assert str(inspect.signature(Trainer.fit)) == (
        "(self, data: Any, epochs: int | None = None, **options: Any) -> localearn.records.record.Record"
    )
    assert typing.get_type_hints(Trainer.fit)["return"] is Record
    assert "return the record" in (inspect.getdoc(MonoForward.fit) or "")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["localearn", "localearn.trainers", "localearn.trainers.local.mono_forward"])
def test_a_rule_fits_whichever_module_it_was_imported_from(module):
    code = f"""
import torch
from {module} import MonoForward
from localearn.nets import MLP
record = MonoForward(MLP(4, 3)).fit((torch.randn(30, 4), torch.arange(30) % 3), epochs=1, energy=False, progress=False)
print(type(record).__name__, record.status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["Record", "completed"], done.stderr


def test_a_rule_with_an_attribute_like_the_hook_of_fit_still_fits():
    class Own(MonoForward):  # pyright: ignore[reportGeneralTypeIssues]
        _fit = None  # pyright: ignore[reportAssignmentType]

    data = (torch.randn(30, 4), torch.arange(30) % 3)
    assert Own(MLP(4, 3)).fit(data, epochs=1, energy=False, progress=False).status == "completed"
