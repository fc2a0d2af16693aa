"""A stage's parameter groups, and what a rule asks of the net that a run builds."""

import numpy as np
import pytest
import torch
from torch import nn

import localearn
from localearn.trainers import Stage
from localearn.training.callbacks import Callback, attached
from localearn.training.experiment import load_net


def test_a_stage_without_groups_leaves_all_to_the_optimizer():
    p = nn.Parameter(torch.zeros(2))
    assert Stage("all", (p,)).optimizer_groups() == [{"params": [p]}]


def test_groups_keep_their_options_and_the_rest_has_the_optimizer_s():
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    stage = Stage("all", (p, q), groups=({"params": [q], "lr": 0.5},))
    optimizer = torch.optim.SGD(stage.optimizer_groups(), lr=0.1, weight_decay=0.2)
    assert [(g["params"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ([p], 0.1, 0.2),
        ([q], 0.5, 0.2),
    ]
    assert "weight_decay" not in stage.groups[0]  # torch.optim completes the groups that it is given


def test_a_stage_may_be_all_groups():
    q = nn.Parameter(torch.zeros(3))
    assert len(torch.optim.SGD(Stage("readout", (q,), groups=({"params": [q]},)).optimizer_groups()).param_groups) == 1


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
