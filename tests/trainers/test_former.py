"""A rule written in the former contract (`Stage`, `stages`, `enter`, ...) trains as it did, with a warning."""

import json
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import localearn
from localearn.errors import UserError
from localearn.trainers import Descent, Solve, Stage, phases
from localearn.trainers.phases import completed

QUIET = {"device": "cpu", "batch_size": 20, "epochs": 2}


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=100)


def net(**options):
    torch.manual_seed(0)
    return localearn.MLP((1, 8, 8), 10, widths=(12, 9), **options)


def former_rule():
    """Return a rule as it was written: blocks by their own readouts, then the net's by ridge regression."""
    with (
        pytest.warns(FutureWarning, match=r"TwoStages.stages, stage_input, .*phases\(\) returns a .*Descent"),
        pytest.warns(FutureWarning, match="TwoStages.scores is deprecated"),
    ):

        class TwoStages(localearn.Trainer):
            def __init__(self, net):
                super().__init__(net)
                self.head = nn.Linear(net.widths[0], net.classes)
                self.held = None
                self.entered = []

            def stages(self):
                first = (*self.net.block(0).parameters(), *self.head.parameters())
                return [
                    Stage("first block", first, groups=({"params": [self.head.weight], "lr": 1e-2},)),
                    Stage("second block", tuple(self.net.block(1).parameters()), start=1),
                    Stage("readout", tuple(self.net.readout.parameters()), start=2, one_pass=True),
                ]

            def enter(self, stage):
                super().enter(stage)
                self.entered.append(stage)
                self.train(self.training)

            def train(self, mode=True):
                super().train(mode)
                for block in list(self.net.blocks)[: self.stage]:
                    block.eval()
                return self

            def stage_input(self, x, *context):
                return self.net.hidden(x, *context, depth=self.stage) if self.stage else x

            def stage_scores(self, h, *context):
                if self.stage == 0:
                    return self.head(self.net.hidden(h, depth=1))
                return self.net.readout(self.net.block(1)(h) if self.stage == 1 else h)

            def gradients(self, batch):
                assert [block.training for block in self.net.blocks] == [self.stage < 1, self.stage < 2]
                if self.stage == 0:
                    loss = self.task.loss(self.head(self.net.hidden(batch.x, depth=1)), batch)
                else:
                    loss = self.task.loss(self.net.readout(self.net.block(1)(batch.x)), batch)
                loss.backward(inputs=list(self.stages()[self.stage].parameters))
                return {"loss": loss.detach()}

            def accumulate(self, batch):
                h = torch.cat([batch.x, torch.ones_like(batch.x[:, :1])], dim=1)
                sums = [h.T @ h, h.T @ self.task.encode(batch.target).float()]
                self.held = sums if self.held is None else [a + b for a, b in zip(self.held, sums, strict=True)]

            def solve(self):
                assert self.held
                a, b = self.held
                solution = torch.linalg.solve(a + torch.eye(len(a)), b)
                self.net.readout.get_parameter("weight").copy_(solution[:-1].T)
                self.net.readout.get_parameter("bias").copy_(solution[-1])
                self.held = None
                return {"loss": torch.zeros(())}

            def scores(self, x, *context):
                return super().scores(x, *context) * 2

    return TwoStages


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return call()


def present_rule():
    """Return the same rule in the present contract."""

    class Ridge(Solve):
        def __init__(self, rule):
            readout, self.held, self.rule = rule.net.readout, None, rule
            super().__init__(
                "readout",
                readout.parameters(),
                predict=lambda h: readout(h),
                features=rule.net.hidden,
                width=rule.net.widths[1],
                frozen=[rule.net.blocks],
            )

        def accumulate(self, batch):
            h = torch.cat([batch.x, torch.ones_like(batch.x[:, :1])], dim=1)
            sums = [h.T @ h, h.T @ self.rule.task.encode(batch.target).float()]
            self.held = sums if self.held is None else [a + b for a, b in zip(self.held, sums, strict=True)]

        def solve(self):
            assert self.held
            (a, b), readout = self.held, self.rule.net.readout
            solution = torch.linalg.solve(a + torch.eye(len(a)), b)
            readout.weight.copy_(solution[:-1].T)
            readout.bias.copy_(solution[-1])
            self.held = None
            return {"loss": torch.zeros(())}

    class TwoPhases(localearn.Trainer):
        def __init__(self, net):
            super().__init__(net)
            self.head = nn.Linear(net.widths[0], net.classes)

        def phases(self):
            first, second = self.net.block(0), self.net.block(1)

            def descend(parameters, predict):
                def gradients(batch):
                    loss = self.task.loss(predict(batch.x), batch)
                    loss.backward(inputs=parameters)
                    return {"loss": loss.detach()}

                return gradients

            def by_head(x):
                return self.head(self.net.hidden(x, depth=1))

            def by_readout(h):
                return self.net.readout(second(h))

            own = [*first.parameters(), *self.head.parameters()]
            groups = [{"params": [self.head.weight], "lr": 1e-2}]
            rest = list(second.parameters())
            return [
                Descent("first block", own, descend(own, by_head), predict=by_head, groups=groups),
                Descent(
                    "second block",
                    rest,
                    descend(rest, by_readout),
                    predict=by_readout,
                    features=lambda x: self.net.hidden(x, depth=1),
                    width=self.net.widths[0],
                    frozen=[first],
                ),
                Ridge(self),
            ]

        def gradients(self, batch):
            raise AssertionError("its phases have their own")

        def predict(self, x, *context):
            return self.net(x) * 2

    return TwoPhases


@pytest.mark.parametrize("cache", [8 * 2**30, 0])
def test_a_rule_of_stages_trains_to_the_same_bits_as_one_of_phases(digits, cache):
    given = {**QUIET, "feature_cache_bytes": cache}
    former, present = former_rule()(net(dropout=0.3)), present_rule()(net(dropout=0.3))
    former.head.load_state_dict(present.head.state_dict())
    one, other = quietly(lambda: former.fit(digits, **given)), present.fit(digits, **given)
    assert one.status == other.status == "completed" and one.stages == other.stages == 3
    assert former.entered == [0, 1, 2]
    for name, value in present.state_dict().items():
        assert torch.equal(value, former.state_dict()[name]), name
    for line, expected in zip(one.history, other.history, strict=True):
        kept = ("stage", "epoch", "train_loss", "val_loss", "val_accuracy", "lr")
        assert [line[key] for key in kept] == [expected[key] for key in kept]
    assert one.test_accuracy == other.test_accuracy


def test_a_run_of_a_former_rule_goes_on_where_it_stopped(digits, tmp_path):
    class Stop(localearn.Callback):
        def step_ended(self, context):
            if (context.position.stage, context.position.epoch, context.position.batch) == (1, 1, 2):
                context.stop("here")

    rule = former_rule()

    def made():
        torch.manual_seed(1)
        return rule(net(dropout=0.3))

    whole, part, rest = made(), made(), made()
    quietly(lambda: whole.fit(digits, **QUIET))
    stopped = quietly(lambda: part.fit(digits, out=tmp_path / "run", callbacks=[Stop()], **QUIET))
    assert stopped.status == "stopped"
    assert quietly(lambda: rest.fit(digits, out=tmp_path / "run", resume=True, **QUIET)).status == "completed"
    assert all(torch.equal(value, rest.state_dict()[name]) for name, value in whole.state_dict().items())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stages"] == 3


def test_stages_of_a_family_may_be_changed_as_before(digits):
    """A local rule that gave its stages other groups, and summed something up beside the family's gradients."""
    with pytest.warns(FutureWarning, match="Slower.stages: deprecated"):

        class Slower(localearn.LocalTrainer):
            def block_loss(self, k, h, batch):
                return self.task.loss(self.net.readout(h.flatten(1)[:, :9]), batch)

            def block_parameters(self, k):
                return list(self.net.block(k).parameters())

            def block_scores(self, h, *context, start, stop):
                for k in range(start, stop):
                    h = self.net.block(k)(h)
                return self.net.readout(h.flatten(1)[:, :9])

            def stages(self):
                return [replace(s, groups=({"params": list(s.parameters), "lr": 1e-4},)) for s in super().stages()]

    names_of: dict[Any, list[str]] = {"joint": ["all blocks"], "greedy": ["block 1", "block 2"]}
    for schedule, names in names_of.items():
        torch.manual_seed(0)
        trainer = Slower(net(), schedule)
        found = quietly(trainer.phases)
        assert [phase.name for phase in found] == names
        rates = [group["lr"] for phase in found if isinstance(phase, Descent) for group in phase.optimizer_groups()]
        assert rates == [1e-4] * len(names)
        before = {name: p.clone() for name, p in trainer.named_parameters()}
        assert quietly(lambda trainer=trainer: trainer.fit(digits, **QUIET)).status == "completed"
        moved = {name for name, p in trainer.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {name for name in before if "blocks" in name}


def test_scores_that_are_overridden_are_the_prediction():
    with pytest.warns(FutureWarning, match="Doubled.scores is deprecated: name it predict"):

        class Doubled(localearn.Backprop):
            def scores(self, x, *context):
                return 2 * quietly(lambda: super(Doubled, self).scores(x, *context))

    trainer, x = Doubled(net()), torch.randn(3, 1, 8, 8)
    assert torch.equal(trainer.predict(x), 2 * trainer.net(x))
    assert torch.equal(trainer.phases()[0].predict(x), 2 * trainer.net(x))


def test_former_names_of_a_present_rule_say_what_to_write():
    trainer, x = localearn.MonoForward(net(), schedule="greedy"), torch.randn(3, 1, 8, 8)
    with pytest.warns(FutureWarning, match=r"scores\(\) is deprecated: call predict\(\)"):
        assert torch.equal(trainer.scores(x), trainer.predict(x))
    with pytest.warns(FutureWarning, match=r"stages\(\) is deprecated"):
        found = trainer.stages()
    assert [(s.name, s.start, s.input_width, s.one_pass) for s in found] == [
        ("block 1", 0, None, False),
        ("block 2", 1, 12, False),
    ]
    with (
        pytest.warns(FutureWarning, match=r"enter\(\) is deprecated"),
        pytest.raises(UserError, match=r"phase = trainer.phases\(\)\[1\]"),
    ):
        trainer.enter(1)
    with pytest.warns(FutureWarning, match="Stage is deprecated"):
        Stage("all", ())


def test_one_phase_may_be_entered_as_before():
    trainer, x = localearn.Backprop(net()), torch.randn(3, 1, 8, 8)
    for call in (lambda: trainer.enter(0), lambda: trainer.stage_input(x), lambda: trainer.stage_scores(x)):
        with pytest.warns(FutureWarning):
            call()
    assert isinstance(trainer.phases()[0], phases.Descent)
    assert set(completed(trainer.gradients(localearn.Batch(x, torch.arange(3))))) == {"loss"}
