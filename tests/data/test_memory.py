"""Sequences that ask for a long memory: they are what they are said to be, and always the same."""

import math

import pytest
import torch

from localearn import Regression, load
from localearn.data import adding, copy_memory
from localearn.errors import UserError
from localearn.tasks.language import PADDING

SMALL = {"train_size": 50, "val_size": 20, "test_size": 30}


def rows(data, split="train"):
    return next(iter(data.batches(split, 30000)))


def test_symbols_are_told_again_after_the_delay():
    data = copy_memory(4, symbols=6, length=3, **SMALL)
    assert data.sizes == {"train": 50, "val": 20, "test": 30} and data.vocabulary == data.task.outputs == 8
    for split in ("train", "val", "test"):
        batch = rows(data, split)
        shown, x, y = batch.x[:, :3], batch.x, batch.target
        assert x.shape[1:] == (10,) == data.input_shape
        assert shown.min() >= 0 and shown.max() <= 5
        assert (x[:, 3:6] == 6).all() and (x[:, 6] == 7).all() and (x[:, 7:] == 6).all()
        assert (y[:, :7] == PADDING).all() and torch.equal(y[:, 7:], shown)
    assert "3 of 6 symbols to tell again after 4 steps; without a memory 2.58 bits" in data.notes[0]


def test_two_marked_values_are_added():
    data = adding(9, **SMALL)
    assert isinstance(data.task, Regression)
    for split in ("train", "val", "test"):
        batch = rows(data, split)
        values, marks = batch.x.unbind(2)
        assert batch.x.shape[1:] == (9, 2) == data.input_shape
        assert ((marks == 0) | (marks == 1)).all() and (values >= 0).all() and (values < 1).all()
        assert (marks[:, :4].sum(1) == 1).all() and (marks[:, 4:].sum(1) == 1).all()
        told = batch.target * data.task.scale[0] + data.task.center[0]
        torch.testing.assert_close(told, (values * marks).sum(1, keepdim=True))
    early = adding(9, **SMALL, marked=4)
    marks = rows(early, "train").x[..., 1]
    assert (marks[:, :2].sum(1) == 1).all() and (marks[:, 2:4].sum(1) == 1).all() and not marks[:, 4:].any()
    assert early.notes[0].startswith("two of the first 4 of 9 values to add")
    assert adding(9, **SMALL, marked=9).fingerprint() == data.fingerprint()
    # Whatever is held, the mean has the error that the docstring says, to 6 standard errors of 30,000 draws.
    many = rows(adding(4, train_size=30000, val_size=1, test_size=1), "train").target
    assert many.mean().abs() < 0.035 and abs(many.square().mean() - 1) < 0.04


def test_the_test_part_is_of_no_seed_and_the_others_are():
    for make in (copy_memory, adding):
        one, other, again = make(**SMALL), make(**SMALL, seed=1), make(**SMALL)
        assert one.fingerprint() == again.fingerprint() != other.fingerprint()
        assert torch.equal(rows(one, "test").x, rows(other, "test").x)
        assert not torch.equal(rows(one, "train").x, rows(other, "train").x)
        assert not torch.equal(rows(one, "train").x[:20], rows(one, "val").x)


def test_they_are_the_same_on_every_machine():
    found = {"copy_memory": load("copy_memory", **SMALL), "adding": load("adding", **SMALL)}
    assert {name: data.fingerprint()[:16] for name, data in found.items()} == FINGERPRINTS


FINGERPRINTS = {"copy_memory": "4c7c73457ef1e1a3", "adding": "62991aefa0702426"}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (copy_memory, {"delay": 0}, "delay must be a whole number, 1 or more, not 0"),
        (copy_memory, {"symbols": 1}, "symbols must be a whole number, 2 or more, not 1"),
        (adding, {"steps": 1}, "steps must be a whole number, 2 or more, not 1"),
        (adding, {"steps": True}, "steps must be a whole number"),
        (adding, {"marked": 1}, "marked must be a whole number, 2 or more, not 1"),
        (adding, {"steps": 4, "marked": 5}, "marked=5 is more than a row's 4 steps"),
        (adding, {"train_size": 0}, "train_size must be a whole number, 1 or more"),
        (adding, {"seed": -1}, "seed is -1"),
    ],
)
def test_options_out_of_range_are_refused(make, options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_what_a_memory_is_worth_is_said():
    assert f"{math.sqrt(1 / 6):.3f}" in adding(**SMALL).notes[0]
