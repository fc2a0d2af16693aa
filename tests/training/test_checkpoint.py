"""Checkpoints that were changed are refused in a line, and leave the process alive."""

import signal
from pathlib import Path

import pytest
import torch


def first(state):
    return next(iter(state["parts"]["optimizer"]["state"].values()))


def of(entry, value):
    return lambda state: first(state).__setitem__(entry, value(first(state)[entry]))


CHANGES = {
    "a shorter moment": (of("exp_avg_sq", lambda v: v[:1].clone()), "exp_avg_sq of parameter 0"),
    "an empty moment": (of("exp_avg", lambda v: torch.zeros(0)), "exp_avg of parameter 0"),
    "an expanded moment": (of("exp_avg", lambda v: torch.zeros(1).expand(v.shape)), "has another memory layout"),
    "a moment of integers": (of("exp_avg", lambda v: v.long()), "torch.int64"),
    "a moment that is text": (of("exp_avg", lambda v: "x"), "is str"),
    "another parameter": (lambda s: s["parts"]["optimizer"]["state"].update({99: {}}), "parameter 99"),
    "no groups": (lambda s: s["parts"]["optimizer"].update(param_groups=[]), "not of these parameters"),
    "no state": (lambda s: s["parts"].update(optimizer={}), "state is invalid"),
    "maximize": (lambda s: s["parts"]["optimizer"]["param_groups"][0].update(maximize=True), "maximize is True"),
    "a rate of NaN": (lambda s: s["parts"]["optimizer"]["param_groups"][0].update(lr=float("nan")), "lr is nan"),
    "an epoch far ahead": (lambda s: s["position"].update(epoch=10**9), "1000000000 epochs"),
    "an epoch before": (lambda s: s["position"].update(epoch=0), "0 epochs"),
    "an epoch below": (lambda s: s["position"].update(epoch=-1), "epoch=-1"),
    "a stage too many": (lambda s: s["position"].update(stage=7), "stage 8 of 1"),
    "no history": (lambda s: s.update(history=[]), "its history has 0"),
    "negative seconds": (lambda s: s["history"][0].update(train_s=-4.9), "train_s=-4.9"),
    "negative seconds of the meter": (
        lambda s: s["meter"]["durations_s"].update(train=-1.0),
        "seconds of train are -1.0",
    ),
    "no sums": (lambda s: s.update(sums={}), "rows seen"),
    "a batch too many": (lambda s: s["position"].update(batch=99), "batch 99 of"),
    "a generator of another kind": (lambda s: s["middle"].update(order=torch.zeros(5056).byte()), "random generators"),
    "no generators": (lambda s: s.update(middle={}), "random generators"),
    "another entry": (lambda s: s["parts"]["stopping"].update(update=1), "stopping has other entries (update)"),
    "a score that is text": (lambda s: s["parts"]["stopping"].update(stale="x"), "stale of its stopping"),
    "no parts": (lambda s: s.update(parts={}), "state of its stopping is invalid"),
    "a schedule's own": (lambda s: s["parts"]["schedule"].update(base_lrs=[]), "base_lrs of its schedule"),
    "best weights of another net": (lambda s: s["parts"]["stopping"]["best_weights"].popitem(), "lacks the tensor"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_checkpoint_is_refused_in_a_line(kind, tiny, door, strike):
    change, told = CHANGES[kind]
    strike(6, signal.SIGINT)
    assert tiny("out=run").status == 130
    path = Path("run/checkpoint.pt")
    good = path.read_bytes()
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    ended = door("resume=run")
    assert ended.status == 2 and told in ended.err, ended.err
    assert ended.err.count("\n") == 1
    path.write_bytes(good)
    assert door("resume=run").status == 0


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_a_state_that_fits_is_loaded(optim, tiny, door, strike, read):
    options = [f"optim={optim}"]
    assert tiny(*options, "out=whole").status == 0
    strike(6, signal.SIGINT)
    assert tiny(*options, "out=part").status == 130
    assert door("resume=part").status == 0
    assert read.net("part") == read.net("whole")
