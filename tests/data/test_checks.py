import numpy as np
import pytest

from localearn.data.checks import checked_arrays, checked_graph
from localearn.errors import UserError


def arrays(**changes):
    sound = {
        "x_train": np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4),
        "y_train": np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8),
        "x_test": np.arange(3 * 16, dtype=np.uint8).reshape(3, 4, 4),
        "y_test": np.array([2, 1, 0]),
    }
    return {**sound, **changes}


def with_value(value):
    x = np.ones((6, 4, 4), np.float64)
    x[1, 2, 3] = value
    return {"x_train": x, "x_test": np.ones((3, 4, 4))}


def test_sound_arrays_pass_as_uint8_and_int64():
    checked = checked_arrays("f", arrays())
    assert checked["x_train"].dtype == np.uint8
    assert checked["y_train"].dtype == checked["y_test"].dtype == np.int64
    assert all(np.array_equal(checked[name], array) for name, array in arrays().items())


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int16, bool])
def test_other_numbers_become_float32(dtype):
    changes = {name: arrays()[name].astype(dtype) for name in ("x_train", "x_test")}
    checked = checked_arrays("f", arrays(**changes))
    assert checked["x_train"].dtype == np.float32
    assert np.array_equal(checked["x_train"], changes["x_train"].astype(np.float32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": np.array([0, 1, 2, 0, 1, -1])}, r"f: y_train holds -1; labels run from 0"),
        ({"y_test": np.array([0, 1, 3])}, r"f: a held-out label is 3; the training labels end at 2"),
        ({"y_train": np.array([0, 1, 3, 0, 1, 3])}, r"reach 3 but none is 2"),
        ({"y_train": np.array([1, 2, 3, 1, 2, 3])}, r"reach 3 but none is 0"),
        ({"y_train": np.array([0, 1, 10**15, 0, 1, 2])}, r"reach 1000000000000000 but none is 3"),
        ({"y_train": np.array([0, 1, 2**64 - 1, 0, 1, 2], np.uint64)}, r"y_train holds 18446744073709551615"),
        ({"y_train": np.array([0.0, 1, 2.5, 0, 1, 2])}, r"y_train is float64 and holds 2\.5; labels must be integers"),
        ({"y_train": np.array(list("abcabc"))}, r"labels are words in one part and numbers in another"),
        ({"y_train": np.array([0j, 1] * 3)}, r"y_train is complex128; labels must be integers"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, r"all 0; at least 2 classes"),
        ({"y_train": np.zeros((6, 1, 1), int)}, r"y_train has shape \(6, 1, 1\); one label for each row"),
        ({"y_train": np.array([0, 1, 2, 0, 1])}, r"x_train has 6 rows and y_train has 5 labels"),
        ({"y_test": np.array([0, 1])}, r"x_test has 3 rows and y_test has 2 labels"),
        (with_value(np.nan), r"x_train holds 1 of 96 values that are NaN or infinite"),
        (with_value(np.inf), r"x_train holds 1 of 96 values"),
        (with_value(1e300), r"x_train holds 1 of 96 values that are NaN or infinite in float32"),
        ({"x_train": np.zeros(6, np.uint8)}, r"x_train has shape \(6,\); \(N, H, W\) or"),
        ({"x_train": np.zeros((6, 1, 2, 2, 2), np.uint8)}, r"x_train has shape \(6, 1, 2, 2, 2\)"),
        ({"x_train": np.zeros((0, 4, 4), np.uint8)}, r"x_train is empty, with shape \(0, 4, 4\)"),
        ({"x_test": np.zeros((0, 4, 4), np.uint8), "y_test": np.zeros(0, int)}, r"x_test is empty"),
        ({"x_train": np.zeros((6, 3, 9, 9), np.uint8)}, r"looks like \(N, C, H, W\); \(N, H, W, C\) is expected"),
        ({"x_test": np.zeros((3, 4, 5), np.uint8)}, r"x_train have shape \(4, 4\), those of x_test \(4, 5\)"),
        ({"x_test": np.zeros((3, 4, 4))}, r"x_train is uint8 and x_test float64"),
        ({"x_train": np.zeros((6, 4, 4), complex)}, r"x_train is complex128; integers or real numbers"),
        ({"x_train": np.full((6, 4, 4), "a")}, r"x_train is <U1; integers or real numbers"),
    ],
)
def test_what_cannot_be_learned_from_is_named_in_a_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        checked_arrays("f", arrays(**changes))
    assert "\n" not in str(caught.value)


def graph(**changes):
    sound = {
        "x": np.eye(6, dtype=np.uint8),
        "edge_index": np.array([[0, 1, 2], [1, 2, 3]]),
        "y": np.array([0, 1, 0, 1, 0, 1]),
        "train": np.array([0, 1]),
        "val": np.array([2, 3]),
        "test": np.array([4]),
    }
    return {**sound, **changes}


def test_a_sound_graph_passes_as_float32_and_int64():
    checked = checked_graph("g", graph(train=np.array([0, 1], np.uint8)))
    assert checked["x"].dtype == np.float32
    assert {checked[name].dtype for name in ("edge_index", "y", "train", "val", "test")} == {np.dtype(np.int64)}


def test_a_graph_may_have_no_edges():
    assert checked_graph("g", graph(edge_index=np.zeros((2, 0), int)))["edge_index"].shape == (2, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((6, 2, 2))}, r"x has shape \(6, 2, 2\); a row of features for each node"),
        ({"x": np.full((6, 2), np.nan)}, r"x holds 12 of 12 values that are NaN"),
        ({"x": np.eye(5)}, r"x has 5 rows and y has 6 labels"),
        ({"edge_index": np.zeros((3, 2), int)}, r"edge_index has shape \(3, 2\); \(2, E\) is expected"),
        ({"edge_index": np.array([[0], [6]])}, r"edge_index holds 0 to 6; nodes run from 0 to 5"),
        ({"edge_index": np.array([[-1], [0]])}, r"edge_index holds -1 to 0"),
        ({"edge_index": np.zeros((2, 2))}, r"edge_index is float64; indices of nodes must be integers"),
        ({"test": np.array([6])}, r"test holds 6 to 6; nodes run from 0 to 5"),
        ({"test": np.zeros(0, int)}, r"test has shape \(0,\); a list of nodes"),
        ({"test": np.ones(6, bool)}, r"test is bool; indices of nodes must be integers"),
        ({"val": np.array([1, 3])}, r"a node is listed twice"),
        ({"y": np.array([0, 0, 0, 1, 0, 1])}, r"the training labels are all 0"),
        ({"y": np.array([0, 1, 0, 1, 2, 1])}, r"a held-out label is 2; the training labels end at 1"),
    ],
)
def test_what_is_wrong_with_a_graph_is_named_in_a_line(changes, message):
    with pytest.raises(UserError, match=message):
        checked_graph("g", graph(**changes))
