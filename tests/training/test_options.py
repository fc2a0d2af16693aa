import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch

from localearn.errors import UserError
from localearn.training import Settings
from localearn.training.optimization import check_optimization
from localearn.training.options import check_call, fits, in_words


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (int, [0, -3], [True, 1.0, "1", None]),
        (float, [1, 1.5], [True, float("nan"), float("inf"), "1", None]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "a"], [1, None, b"a"]),
        (Path, ["a", Path("a")], [1, None]),
        (int | None, [1, None], [1.5, "1"]),
        (Literal["a", "b"], ["a"], ["c", None, 1]),
        (Sequence[int], [[], [1, 2], (1,)], ["12", [1.5], 1, [True]]),
        (Iterable[int], [[1]], ["12", ["a"]]),
        (int | Sequence[int], [2, [1, 2]], ["2", [1.5]]),
        (tuple[float, float], [[1, 2.0], (1, 2)], [[1], [1, 2, 3], ["a", "b"], 1]),
        (tuple[int, ...], [[], (1, 2, 3)], [[1.0], "1"]),
        (float | torch.Tensor, [0.1, torch.tensor(0.1)], ["0.1", None]),
        (Mapping[str, Any], [{}], [[], "a"]),
        (Callable[[int], int], [abs], [1, "abs"]),
        (Any, [1, None, "x"], []),
        ("a name that nobody resolved", [1, None], []),
    ],
)
def test_values_fit_their_annotations(hint, right, wrong):
    assert all(fits(value, hint) for value in right)
    assert not any(fits(value, hint) for value in wrong)


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "a whole number or null"),
        (float | torch.Tensor, "a number"),
        (str | Path | None, "text or a path or null"),
        (Literal["a", "b", "c"], "a, b or c"),
        (tuple[float, float], "a list of 2: a number, a number"),
        (Sequence[int], "a list of whole numbers"),
        (int | Sequence[int], "a whole number or a list of whole numbers"),
        (Mapping[str, int], "a mapping"),
        (Callable[[int], int], "something to call"),
    ],
)
def test_annotations_are_told_in_words(hint, words):
    assert in_words(hint) == words


def target(net, k: int, *, mode: Literal["on", "off"] = "on", unchecked=3):
    return net, k, mode, unchecked


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"k": 1, "moed": "on"}, "target has no option algo.moed; did you mean 'mode'?; it has k, mode, unchecked"),
        ({}, "algo.k is missing"),
        ({"k": "1"}, "algo.k must be a whole number, not '1'"),
        ({"k": 1, "mode": "of"}, "algo.mode must be on or off, not 'of'; did you mean 'off'?"),
        ({"k": 1, "mode": True}, "algo.mode must be on or off, not true"),
        ({"k": 1, "net": 2}, "target has no option algo.net"),
    ],
)
def test_what_a_call_cannot_take_is_told(options, told):
    with pytest.raises(UserError) as error:
        check_call("algo", target, options, supplied=("net",))
    assert told in str(error.value)


def test_what_a_call_can_take_passes():
    check_call("algo", target, {"k": 1, "unchecked": object()}, supplied=("net",))
    check_call("algo", lambda **anything: None, {"whatever": 1})
    check_call("algo", dict, {"a": 1})  # built in, which does not tell what it takes


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epoch": 3}, "fit has no option 'epoch'; did you mean 'epochs'?"),
        ({"epochs": 2.0}, "epochs must be a whole number, not 2.0"),
        ({"optim": "adam"}, "optim must be something to call, not 'adam'"),
        ({"out": 3}, "out must be a path or null, not 3"),
    ],
)
def test_settings_tell_what_they_cannot_take(options, told):
    with pytest.raises(UserError) as error:
        Settings.of(**options)
    assert told in str(error.value)


ADAM = functools.partial(torch.optim.Adam, lr=0.1)


@pytest.mark.parametrize(
    ("optim", "schedule", "told"),
    [
        (functools.partial(torch.optim.Adam, lr=-1), None, "optim: Invalid learning rate: -1"),
        (lambda parameters: parameters, None, "optim gives a list, not a torch.optim.Optimizer"),
        (lambda: None, None, "optim: "),
        (ADAM, lambda optimizer: optimizer, "schedule gives a Adam, not a torch.optim.lr_scheduler"),
        (ADAM, functools.partial(torch.optim.lr_scheduler.StepLR, step_size=0), "schedule: "),
        (ADAM, functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=cast(Any, "ab")), "schedule: "),
    ],
)
def test_an_optimizer_or_a_schedule_that_cannot_work_is_told(optim, schedule, told):
    with pytest.raises(UserError) as error:
        check_optimization(optim, schedule, torch.device("cpu"))
    assert str(error.value).startswith(told)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", [None, torch.optim.lr_scheduler.ReduceLROnPlateau])
def test_those_that_work_pass_without_a_warning(name, schedule):
    optim = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    check_optimization(functools.partial(optim, lr=0.1, fused=True), schedule, torch.device("cpu"))
