"""Phases: their parameter groups, features and steps; and what a rule asks of the net that a run builds."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import localearn
from localearn.trainers import Descent
from localearn.training.callbacks import Callback, attached
from localearn.training.loading import load_net


def descent(name, parameters, **options):
    return Descent(name, parameters, lambda batch: {}, predict=nn.Identity(), **options)


def test_a_phase_without_groups_leaves_all_to_the_optimizer():
    p = nn.Parameter(torch.zeros(2))
    assert descent("all", [p]).optimizer_groups() == [{"params": [p]}]


def test_groups_keep_their_options_and_the_rest_has_the_optimizer_s():
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    phase = descent("all", [p, q], groups=[{"params": [q], "lr": 0.5}])
    optimizer = torch.optim.SGD(phase.optimizer_groups(), lr=0.1, weight_decay=0.2)
    assert [(g["params"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ([p], 0.1, 0.2),
        ([q], 0.5, 0.2),
    ]
    assert "weight_decay" not in phase.groups[0]  # torch.optim completes the groups that it is given


def test_a_phase_may_be_all_groups():
    q = nn.Parameter(torch.zeros(3))
    groups = descent("readout", [q], groups=[{"params": [q]}]).optimizer_groups()
    assert len(torch.optim.SGD(groups).param_groups) == 1


def test_features_come_with_their_width():
    with pytest.raises(ValueError, match="phase 'readout': features and their width go together"):
        descent("readout", [], features=nn.Flatten())
    phase = descent("readout", [], features=nn.Flatten(), width=6)
    assert phase.input(torch.zeros(2, 3, 2)).shape == (2, 6)


def test_a_phase_freezes_what_it_says():
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    descent("second", [], frozen=[model[0]]).freeze()
    assert [layer.training for layer in model] == [False, True]


class Yields(localearn.Trainer):
    """Goes on from the stepped weights, a number of times."""

    def __init__(self, net, steps, yields):
        super().__init__(net)
        self.steps, self.yields = steps, yields

    def phases(self):
        return [self.descent("all", self.parameters(), steps=self.steps)]

    def gradients(self, batch):
        for _ in range(self.yields):
            loss = self.task.loss(self.net(batch.x), batch)
            loss.backward()
            yield {"loss": loss.detach()}


@pytest.mark.parametrize("step", ["all", "block"])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_rule_of_steps_is_stepped_wherever_it_yields(step, clip_norm):
    """As so many batches, each of them seen twice, would be."""
    if step == "block" and clip_norm:
        pytest.skip("is refused")

    def net():
        torch.manual_seed(0)
        return localearn.MLP((1, 8, 8), 10, widths=(7,))

    data, optim = localearn.load("digits", train_size=60), functools.partial(torch.optim.SGD, lr=0.3, momentum=0.5)
    batch = next(data.batches("train", 60))
    trained, expected = net(), net()
    whole = {"batch_size": 60, "epochs": 1, "optim": optim, "step": step, "clip_norm": clip_norm, "device": "cpu"}
    Yields(trained, 2, 2).fit(data, **whole)
    optimizer = optim(expected.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        expected.task.loss(expected(batch.x), batch).backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(expected.parameters(), clip_norm)
        optimizer.step()
    for one, other in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)  # the run shuffles its rows


def test_a_generator_of_one_step_is_stepped_at_its_end():
    data = localearn.load("digits", train_size=60)
    states = []
    for rule in (lambda net: Yields(net, 1, 1), localearn.Backprop):
        torch.manual_seed(0)
        trainer = rule(localearn.MLP((1, 8, 8), 10, widths=(7,)))
        trainer.fit(data, epochs=2, batch_size=20)
        states.append(trainer.net.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(("yields", "told"), [(1, "fewer"), (3, "more")])
def test_yields_and_steps_must_agree(yields, told):
    trainer = Yields(localearn.MLP((1, 8, 8), 10, widths=(7,)), 2, yields)
    with pytest.raises(ValueError, match=f"Yields's gradients.. yields {told} times than its phase has steps, 2"):
        trainer.fit(localearn.load("digits", train_size=60), epochs=1)


@pytest.mark.parametrize("schedule", ["joint", "greedy"])
def test_a_run_gives_the_readout_its_rate_and_cools_down(tiny, read, schedule):
    groups = []

    class Spy(Callback):
        def phase_started(self, context):
            assert context.optimizer
            of_phase = context.optimizer.param_groups
            groups.append([(len(g["params"]), g["initial_lr"], g["weight_decay"]) for g in of_phase])

    rates = (
        "optim=sgd",
        "optim.lr=0.001",
        "optim.weight_decay=0.0003",
        "algo.readout_lr=0.01",
        "algo.readout_weight_decay=0.003",
    )
    with attached(Spy()):
        ended = tiny("algo=forward_forward", f"algo.schedule={schedule}", *rates, "batch_size=20", "out=run")
    assert ended.status == 0, ended.err
    blocks, readout = (0.001, 0.0003), (0.01, 0.003)
    if schedule == "joint":
        assert groups[-1] == [(4, *blocks), (2, *readout)]
    else:
        assert groups[-3:] == [[(2, *blocks)], [(2, *blocks)], [(2, *readout)]]
    assert [line["lr"] for line in read.history("run")][:3] == pytest.approx([0.001, 0.001, 0.001 * 2 / 3])


def test_a_run_builds_a_net_that_has_room_for_labels(door, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)).astype("float32"), np.arange(40) % 4
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    few = ("epochs=2", "net.widths=[6,6]", "energy.enabled=false", "progress=false")
    ended = door("algo=forward_forward", "dataset=npz", "dataset.path=mine.npz", "out=run", *few)
    assert ended.status == 0, ended.err
    assert load_net(tmp_path / "run").input_shape == (9,)
    assert door("dataset=npz", "dataset.path=mine.npz", "out=other", *few).status == 0
    assert load_net(tmp_path / "other").input_shape == (5,)


def test_graphs_get_a_wider_net(door, tmp_path):
    few = ("epochs=2", "net.widths=[6,6]", "energy.enabled=false", "progress=false")
    ended = door("algo=forward_forward", "dataset=karate", "out=run", *few)
    assert ended.status == 0, ended.err
    data = localearn.load("karate")
    assert load_net(tmp_path / "run").input_shape == (data.input_shape[0] + data.classes,)
