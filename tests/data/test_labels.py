import numpy as np
import pytest

from localearn.data.checks import checked_parts
from localearn.data.labels import numbered
from localearn.errors import UserError

WANTED = [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([0, 1, 2, 0], np.uint8), None),
        (np.array([[0], [1], [2], [0]]), None),
        (np.array([0.0, 1.0, 2.0, 0.0], np.float32), None),
        (np.eye(3)[WANTED], None),
        (np.eye(3, dtype=bool)[WANTED], None),
        (np.array([1, 2, 3, 1]), ("1", "2", "3")),
        (np.array([[1.0], [2], [3], [1]]), ("1", "2", "3")),
        (np.array(["ash", "oak", "yew", "ash"]), ("ash", "oak", "yew")),
        (np.array(["ash", "oak", "yew", "ash"], object), ("ash", "oak", "yew")),
        (np.array(["ash", "öak", "yew", "ash"]).astype("U3"), ("ash", "yew", "öak")),
        (np.array([b"ash", b"oak", b"yew", b"ash"]), ("ash", "oak", "yew")),
    ],
)
def test_labels_of_every_kind_are_numbered_from_0_and_their_names_kept(labels, names):
    parts, found = numbered("f", {"y_train": labels, "y_test": labels[:2]})
    wanted = WANTED if "öak" not in (names or ()) else [0, 2, 1, 0]
    assert parts["y_train"].dtype == np.int64
    assert (parts["y_train"].tolist(), parts["y_test"].tolist()) == (wanted, wanted[:2])
    assert found == names


def test_booleans_are_two_classes():
    parts, names = numbered("f", {"y": np.array([True, False])})
    assert (parts["y"].tolist(), names) == ([1, 0], ("False", "True"))


def test_numbers_from_1_are_moved_only_where_no_part_has_a_0():
    labels = {"y_train": np.array([1, 2]), "y_test": np.array([0])}
    assert numbered("f", labels)[0]["y_train"].tolist() == [1, 2]


def test_words_keep_the_order_of_given_names():
    parts, names = numbered("f", {"y": np.array(["low", "high"])}, ["low", "high"])
    assert (parts["y"].tolist(), names) == ([0, 1], ("low", "high"))
    with pytest.raises(UserError, match="a label is 'high', which is not among the class_names low, mid"):
        numbered("f", {"y": np.array(["low", "high"])}, ["low", "mid"])
    with pytest.raises(UserError, match="there are 3 class_names and 2 classes"):
        numbered("f", {"y": np.array([0, 1])}, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 0.5]), r"f: y is float64 and holds 0\.5; labels must be integers"),
        (np.array([0, 1, np.nan]), r"f: y holds 1 of 3 labels that are NaN or infinite"),
        (np.array([0, 1, np.inf]), r"f: y holds 1 of 3 labels that are NaN"),
        (np.array([0, 1, 1e300]), r"holds 1e\+300"),
        (np.array([0, 1, -1]), r"f: y holds -1; labels run from 0"),
        (np.array([0, 1, -100.0]), r"f: y holds -100; labels run from 0"),
        (np.array([[0, 1], [1, 1]]), r"f: y has shape \(2, 2\) and its row 1 is not one-hot"),
        (np.array([[0, 1], [0, 0]]), r"its row 1 is not one-hot"),
        (np.array([[1, 0], [0.2, 0.8]]), r"its row 1 is not one-hot"),
        (np.array([[1, np.nan]]), r"its row 0 is not one-hot"),
        (np.zeros((2, 2, 2)), r"has shape \(2, 2, 2\)"),
        (np.array([["a", "b"]]), r"has shape \(1, 2\)"),
        (np.array([1, None], object), r"f: y is object; labels must be"),
        (np.array([b"\xff", b"a"]), r"bytes that are no UTF-8"),
    ],
)
def test_other_labels_are_named_in_a_line(labels, message):
    with pytest.raises(UserError, match=message) as caught:
        numbered("f", {"y": labels})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([1, 2, 4], [1], "reach 4 but none is 0"),
        ([1, 2, 3], [4], "a held-out label is 4; the training labels end at 3"),
        (["a", "b"], ["c"], "a held-out label is c; the training labels end at b"),
        (["a", "c"], ["b"], "reach c but none is b"),
        (["a", "a"], ["b"], "the training labels are all a; at least 2"),
    ],
)
def test_messages_speak_of_the_labels_that_were_given(train, test, message):
    parts = {"x_train": np.ones((len(train), 2)), "x_test": np.ones((1, 2))}
    with pytest.raises(UserError, match=message):
        checked_parts("f", {**parts, "y_train": np.array(train), "y_test": np.array(test)})


def test_channels_first_images_are_taken_where_it_is_said():
    x = np.arange(2 * 3 * 6 * 5, dtype=np.uint8).reshape(2, 3, 6, 5)
    arrays = {"x_train": x, "y_train": np.array([0, 1])}
    assert np.array_equal(checked_parts("f", arrays, "nchw")[0]["x_train"], x.transpose(0, 2, 3, 1))
    with pytest.raises(UserError, match=r"looks like \(N, C, H, W\); .* or give layout=nchw"):
        checked_parts("f", arrays)
    arrays["x_train"] = x.transpose(0, 2, 3, 1)
    with pytest.raises(UserError, match=r"looks like \(N, H, W, C\); \(N, C, H, W\) is expected"):
        checked_parts("f", arrays, "nchw")
