"""One fit at a time for a rule and its net."""

import functools
import threading
from typing import Any

import pytest
import torch

import localearn
from localearn.errors import UserError
from localearn.training import fit


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=60)


@pytest.mark.parametrize("shared", ["rule", "net"])
def test_what_another_fit_is_training_is_refused_and_then_free_again(digits, shared):
    first = localearn.MonoForward(localearn.MLP(digits.input_shape, digits.classes, widths=[8]))
    second = first if shared == "rule" else localearn.Backprop(first.net)
    training, told, errors = threading.Event(), threading.Event(), []

    def held_open(groups: Any) -> torch.optim.Optimizer:
        training.set()
        assert told.wait(60)
        return torch.optim.SGD(groups, lr=0.1)

    def work() -> None:
        try:
            fit(first, digits, epochs=1, optim=held_open)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert training.wait(60)
        with pytest.raises(UserError, match="is being trained by another fit; wait for that, or train a copy"):
            fit(second, digits, epochs=1)
    finally:
        told.set()
        thread.join(60)
    assert not errors
    assert fit(second, digits, epochs=1).status == "completed"


def test_a_fit_inside_a_fit_of_another_rule_is_its_own(digits):
    def trainer():
        torch.manual_seed(0)
        return localearn.ForwardGradient(localearn.MLP(digits.input_shape, digits.classes, widths=[8]))

    alone, outer = trainer(), trainer()
    options: dict[str, Any] = {"epochs": 1, "batch_size": 20}
    fit(alone, digits, optim=functools.partial(torch.optim.SGD, lr=0.1), **options)
    inner, others = [], [trainer() for _ in range(3)]

    class Nosy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if self.param_groups[0]["params"][0].numel() > 1:  # the run's own, not the one tried before it
                inner.append(fit(others.pop(), digits, **options))
            return super().step(closure)

    fit(outer, digits, optim=functools.partial(Nosy, lr=0.1), **options)
    assert [record.status for record in inner] == ["completed"] * 3
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), outer.parameters(), strict=True))
