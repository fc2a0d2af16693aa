from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from localearn.errors import UserError
from localearn.options import check_call, check_types, checked, checked_call, fits, in_words


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (int, [0, -3, np.int64(2)], [True, np.True_, 1.0, "1", None]),
        (float, [1, 1.5, np.float32(0.5)], [True, float("nan"), float("inf"), "1", None]),
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
        (Callable[[int], int], "a callable"),
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


class Built:
    @checked
    def __init__(self, net, k: int = 1, *, mode: Literal["on", "off"] = "on"):
        self.given = (net, k, mode)


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        ((3, "1"), {}, "k must be a whole number, not '1'"),
        ((3,), {"k": None}, "k must be a whole number, not null"),
        ((3, 1), {"mode": "of"}, "mode must be on or off, not 'of'; did you mean 'off'?"),
        ((3, 1), {"moed": "on"}, "Built has no option moed; did you mean 'mode'?; it has k, mode"),
    ],
)
def test_a_checked_constructor_tells_the_options_that_it_cannot_take(arguments, options, told):
    with pytest.raises(UserError) as error:
        Built(*arguments, **options)
    assert str(error.value) == told


def test_a_checked_constructor_takes_what_fits_and_anything_in_its_first_place():
    assert Built("net", 2, mode="off").given == ("net", 2, "off")
    with pytest.raises(TypeError, match="positional"):
        Built(1, 2, "off")  # pyright: ignore[reportCallIssue]


def test_a_text_that_looks_like_a_number_is_told_how_to_quote():
    with pytest.raises(UserError, match=r"""^data\.target must be text .*, data\.target="'2020'"$"""):
        check_types({"target": 2020}, {"target": str | None}, prefix="data.")
    with pytest.raises(UserError, match=r"^data\.size must be a whole number, not 2\.5$"):
        check_types({"size": 2.5}, {"size": int}, prefix="data.")


def test_a_function_checks_what_it_is_called_with():
    @checked_call
    def sized(path: str, size: int = 1, *, unit: Literal["a", "b"] = "a") -> tuple[str, int, str]:
        return path, size, unit

    assert sized("x", 2, unit="b") == ("x", 2, "b")
    wrong: Any = (
        (("x", "2"), {}, "^size must be a whole number, not '2'$"),
        (("x",), {"unit": "c"}, "^unit must be a or b, not 'c'"),
        (("x",), {"unti": "a"}, "has no option unti; did you mean 'unit'"),
    )
    for arguments, options, message in wrong:
        with pytest.raises(UserError, match=message):
            sized(*arguments, **options)
