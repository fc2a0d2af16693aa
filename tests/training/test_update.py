"""The update of a step: all at once, or each gradient as soon as it is there."""

import functools

import pytest
import torch

import localearn
from localearn import cli
from localearn.benching.plan import known_rules
from localearn.errors import UserError
from localearn.nets import MLP
from localearn.training.experiment import build
from localearn.training.fit import train
from localearn.training.memory import live_tensor_bytes
from localearn.training.parallel import Ranks
from localearn.training.settings import Settings
from localearn.training.update import UPDATES


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=60)


def trained(step, *overrides):
    """Return what a rule's state is after two epochs with updates of that kind."""
    asked = ["dataset=digits", "dataset.train_size=60", "net.widths=[12,10]", "batch_size=20", "epochs=2",
             "energy.enabled=false", "progress=false", f"step={step}", *overrides]  # fmt: skip
    data, trainer, settings = build(*cli.compose(asked))
    settings = Settings(**{**vars(settings), "out": None})
    train(trainer, data, settings)
    return trainer.state_dict()


def differing(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("rule", known_rules())
def test_a_step_for_each_gradient_ends_in_the_same_bits_for_every_rule(rule):
    assert not differing(trained("all", f"algo={rule}"), trained("block", f"algo={rule}"))


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", ["joint", "greedy"])
def test_a_step_for_each_gradient_ends_in_the_same_bits_with_every_optimizer(optim, schedule):
    asked = ["algo=mono_forward", f"algo.schedule={schedule}", "net.norm=batch", "net.dropout=0.2", f"optim={optim}"]
    assert not differing(trained("all", *asked), trained("block", *asked))


def test_gradients_are_dropped_one_by_one(digits):
    """Peak bytes of a step at depth 12: of all gradients, or of one block's and its activations."""

    def peak(rule, step):
        trainer = rule(MLP(digits.input_shape, digits.classes, widths=[64] * 12))
        stage = trainer.stages()[0]
        settings = Settings(step=step, optim=functools.partial(torch.optim.SGD, lr=0.1))
        autocast = torch.autocast("cpu", enabled=False)
        update = UPDATES[step](trainer, stage, settings.optim(stage.parameters), settings, autocast, Ranks())
        batch = next(digits.batches("train", 8))
        with live_tensor_bytes() as live:
            update(batch)
        return live.peak_bytes

    block = 4 * 64 * 64
    for rule in (localearn.MonoForward, localearn.Backprop, localearn.DirectFeedbackAlignment):
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


def test_a_gradient_in_parts_is_refused(digits):
    trainer = InParts(MLP(digits.input_shape, digits.classes, widths=[8]))
    with pytest.raises(UserError, match="InParts adds a gradient up from parts"):
        trainer.fit(digits, epochs=1, step="block")
    trainer.fit(digits, epochs=1, step="all")


def test_what_a_rule_fills_in_itself_is_stepped_when_it_is_whole(digits):
    def fitted(step):
        torch.manual_seed(0)
        trainer = ByHand(MLP(digits.input_shape, digits.classes, widths=[8]))
        trainer.fit(digits, epochs=1, step=step)
        return trainer.state_dict()

    assert not differing(fitted("all"), fitted("block"))


def test_gradients_for_another_purpose_are_no_step(digits):
    """A diagnosis takes gradients too, between the epochs."""

    def fitted(diagnose):
        torch.manual_seed(0)
        trainer = localearn.MonoForward(MLP(digits.input_shape, digits.classes, widths=[8]))
        trainer.fit(digits, epochs=2, step="block", diagnose=diagnose)
        return trainer.state_dict()

    assert not differing(fitted("none"), fitted("alignment"))


def test_the_hooks_are_gone_afterwards(digits):
    trainer = localearn.MonoForward(MLP(digits.input_shape, digits.classes, widths=[8]))
    trainer.fit(digits, epochs=1, step="block")
    trainer.gradients(next(digits.batches("train", 8)))
    assert all(p.grad is not None for p in trainer.parameters())


def test_a_bound_on_all_gradients_needs_them_all():
    with pytest.raises(UserError, match="clip_norm needs all gradients at once"):
        Settings(clip_norm=1.0, step="block")
