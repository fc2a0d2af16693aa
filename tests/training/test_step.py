"""The update of a step: all at once, or each gradient as soon as it is there."""

import functools

import pytest
import torch

import localearn
from localearn import cli
from localearn.data import from_arrays
from localearn.errors import UserError
from localearn.nets import MLP
from localearn.training.distributed import Ranks
from localearn.training.experiment import build
from localearn.training.fit import train
from localearn.training.memory import live_tensor_bytes
from localearn.training.settings import Settings
from localearn.training.step import UPDATES
from tests.marks import rules_of


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=60)


def trained(step, *overrides, widths=("net.widths=[12,10]",)):
    """Return what a rule's state is after two epochs with updates of that kind."""
    asked = ["dataset=digits", "dataset.train_size=60", *widths, "batch_size=20", "epochs=2",
             "energy.enabled=false", "progress=false", f"step={step}", *overrides]  # fmt: skip
    data, trainer, settings = build(*cli.compose(asked))
    settings = Settings(**{**vars(settings), "out": None})
    train(trainer, data, settings)
    return trainer.state_dict()


def differing(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("rule", rules_of("mlp"))
def test_a_step_for_each_gradient_ends_in_the_same_bits_for_every_rule(rule):
    asked = [f"algo={rule}", "optim.lr=0.01", "clip_norm=null"]  # a bound needs all gradients at once
    assert not differing(trained("all", *asked), trained("block", *asked))


@pytest.mark.parametrize(
    "overrides", [["net=cnn", "net.channels=[4,6]", "recipe=maps"], ["precision=bf16"]], ids=["cnn", "bf16"]
)
@pytest.mark.parametrize("rule", ["backprop", "feedback_alignment", "pepita", "forward_gradient", "likelihood_ratio"])
def test_a_step_for_each_gradient_ends_in_the_same_bits_for_maps_and_in_bf16(rule, overrides):
    asked = [f"algo={rule}", *overrides]
    widths = ["net.widths=[12,10]"] if "net=cnn" not in overrides else []
    one, other = (trained(step, *asked, widths=widths) for step in ("all", "block"))
    assert not differing(one, other)


@pytest.mark.parametrize("form", ["difference", "hebbian", "time_local"])
def test_a_step_for_each_gradient_leaves_the_mirror_what_it_saw(form):
    asked = ["algo=pepita", "algo.mirror=true", f"algo.form={form}"]
    assert not differing(trained("all", *asked), trained("block", *asked))


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["joint", "greedy"])
def test_a_step_for_each_gradient_ends_in_the_same_bits_with_every_optimizer(optim, schedule):
    asked = ["algo=mono_forward", f"algo.schedule={schedule}", "net.norm=batch", "net.dropout=0.2", f"optim={optim}"]
    assert not differing(trained("all", *asked), trained("block", *asked))


def test_gradients_are_dropped_one_by_one(digits):
    """Peak bytes of a step at depth 12: of all gradients, or of one block's and its activations."""

    def peak(rule, step):
        trainer = rule(MLP(digits.input_shape, digits.classes, widths=[64] * 12))
        phase = trainer.phases()[0]
        settings = Settings(step=step, optim=functools.partial(torch.optim.SGD, lr=0.1))
        autocast = torch.autocast("cpu", enabled=False)
        update = UPDATES[step](trainer, phase, settings.optim(phase.parameters), settings, autocast, Ranks())
        batch = next(digits.batches("train", 8))
        with live_tensor_bytes() as live:
            update(batch)
        return live.peak_bytes

    block = 4 * 64 * 64
    rules = (localearn.MonoForward, localearn.Backprop, localearn.DirectFeedbackAlignment, localearn.FeedbackAlignment)
    for rule in rules:
        assert peak(rule, "all") > 11 * block
        assert peak(rule, "block") < 6 * block


class InParts(localearn.Trainer):
    """Adds its gradient up from two halves of the batch."""

    crosses_blocks = True

    def gradients(self, batch):
        for half in (slice(None, None, 2), slice(1, None, 2)):
            loss = torch.nn.functional.cross_entropy(self.net(batch.x[half]), batch.y[half])
            loss.backward()
        return {"loss": loss.detach()}


class ByHand(localearn.Trainer):
    """Puts one parameter's gradient into `.grad` itself, in parts, around another's by autograd."""

    def gradients(self, batch):
        readout = self.net.readout
        assert isinstance(readout, torch.nn.Linear)
        readout.bias.grad = torch.ones_like(readout.bias)
        output = self.net(batch.x)
        loss = torch.nn.functional.cross_entropy(output, batch.y)
        parameters = [p for p in self.parameters() if p is not readout.bias]
        loss.backward(inputs=parameters)
        readout.bias.grad += 1
        return {"loss": loss.detach()}


def test_a_gradient_in_parts_is_stepped_when_it_is_whole(digits):
    assert not differing(*(fitted(InParts, digits, step=step) for step in ("all", "block")))


class YieldsParts(InParts):
    """Yields in the midst of a gradient."""

    def by_block(self, batch):
        for half in (slice(None, None, 2), slice(1, None, 2)):
            loss = torch.nn.functional.cross_entropy(self.net(batch.x[half]), batch.y[half])
            loss.backward()
            yield {"loss": loss.detach()}


class SharedLoss(localearn.LocalTrainer):
    def block_loss(self, k, h, batch):
        return h.square().mean()


def shared():
    layer = torch.nn.Linear(8, 8)
    return localearn.Net([localearn.Block(layer), localearn.Block(layer)], torch.nn.Linear(8, 10), input_shape=(8,))


@pytest.mark.parametrize("rule", [YieldsParts, lambda net: SharedLoss(shared())], ids=["yields", "shares weights"])
def test_a_gradient_that_is_stepped_before_it_is_whole_is_refused(digits, rule):
    rows = from_arrays(torch.randn(40, 8), torch.arange(40) % 10)
    with pytest.raises(UserError, match="accumulates a gradient over several blocks, so it needs step=all"):
        rule(MLP((8,), 10, widths=[8])).fit(rows, epochs=1, step="block")


@pytest.mark.parametrize("rule", [localearn.Backprop, localearn.FeedbackAlignment])
def test_backward_passes_through_shared_weights_are_stepped_whole(rule):
    rows = from_arrays(torch.randn(40, 8), torch.arange(40) % 10)
    states = []
    for step in ("all", "block"):
        torch.manual_seed(0)
        trainer = rule(shared())
        trainer.fit(rows, epochs=2, batch_size=8, step=step)
        states.append(trainer.state_dict())
    assert not differing(*states)


def fitted(rule, digits, **options):
    torch.manual_seed(0)
    trainer = rule(MLP(digits.input_shape, digits.classes, widths=[8]))
    trainer.fit(digits, epochs=1, **options)
    return trainer.state_dict()


def test_what_a_rule_fills_in_itself_is_stepped_when_it_is_whole(digits):
    assert not differing(*(fitted(ByHand, digits, step=step) for step in ("all", "block")))


def test_gradients_for_another_purpose_are_no_step(digits):
    """A diagnosis takes gradients too, between the epochs."""

    options = [{"step": "block", "diagnose": diagnose} for diagnose in ("none", "alignment")]
    assert not differing(*(fitted(localearn.MonoForward, digits, **given) for given in options))


def test_gradients_are_left_alone_afterwards(digits):
    trainer = localearn.MonoForward(MLP(digits.input_shape, digits.classes, widths=[8]))
    trainer.fit(digits, epochs=1, step="block")
    trainer.gradients(next(digits.batches("train", 8)))
    assert all(p.grad is not None for p in trainer.parameters())


def test_a_bound_on_all_gradients_needs_them_all():
    with pytest.raises(UserError, match="clip_norm needs all gradients at once"):
        Settings(clip_norm=1.0, step="block")
