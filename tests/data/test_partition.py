import numpy as np
import pytest

from localearn.data.partition import check_fraction, fold_of, held_out_size, hold_out
from localearn.errors import UserError

LABELS = np.repeat([0, 1, 2], [60, 30, 11])


def test_the_two_parts_are_disjoint_complete_and_in_order():
    rest, held = hold_out(LABELS, 17, seed=3)
    assert len(held) == 17
    assert (np.diff(rest) > 0).all() and (np.diff(held) > 0).all()
    assert sorted([*rest, *held]) == list(range(len(LABELS)))


@pytest.mark.parametrize("size", [1, 10, 20, 50, 100])
def test_every_class_gives_its_share_to_the_nearest_row(size):
    _, held = hold_out(LABELS, size, seed=0)
    given = np.bincount(LABELS[held], minlength=3)
    assert np.abs(given - size * np.bincount(LABELS) / len(LABELS)).max() < 1


def test_the_seed_alone_decides():
    again = hold_out(LABELS, 20, seed=5)[1]
    assert np.array_equal(hold_out(LABELS, 20, seed=5)[1], again)
    assert not np.array_equal(hold_out(LABELS, 20, seed=6)[1], again)


def test_the_split_stays_the_same_from_version_to_version():
    assert hold_out(np.arange(12) % 3, 4, seed=0)[1].tolist() == [4, 6, 10, 11]


def test_a_size_goes_before_the_fraction():
    assert held_out_size("val", 1438, 0.1) == 144
    assert held_out_size("val", 1438, 0.1, 7) == 7


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_its_range_is_named(fraction):
    with pytest.raises(UserError, match=rf"test_fraction is {fraction}; it must lie between 0 and 1"):
        check_fraction("test", fraction)


@pytest.mark.parametrize(
    ("rows", "fraction", "size", "message"),
    [
        (10, 0.01, None, "val_fraction=0.01 holds out 0 of 10 training rows; between 1 and 9"),
        (10, 0.99, None, "val_fraction=0.99 holds out 10 of 10"),
        (10, 0.5, 0, "val_size=0 holds out 0 of 10"),
        (10, 0.5, 10, "val_size=10 holds out 10 of 10"),
        (10, 0.5, -1, "val_size=-1 holds out -1 of 10"),
        (1, 0.5, None, "cannot split 1 training row in two; at least 2"),
    ],
)
def test_a_side_left_empty_is_an_error(rows, fraction, size, message):
    with pytest.raises(UserError, match=message):
        held_out_size("val", rows, fraction, size)


@pytest.mark.parametrize("rows", [10, 34, 103])
@pytest.mark.parametrize("fold", range(5))
def test_folds_are_those_of_scikit_learn(rows, fold):
    from sklearn.model_selection import KFold, train_test_split

    rest, test = list(KFold(5, shuffle=True, random_state=101).split(np.arange(rows)))[fold]
    train, val = train_test_split(rest, test_size=0.2, random_state=127 * fold, shuffle=True)
    for ours, theirs in zip(fold_of(rows, fold), (train, val, test), strict=True):
        assert ours.tolist() == np.sort(theirs).tolist()


def test_refuses_folds_that_there_are_not():
    with pytest.raises(UserError, match="fold is 5; it must lie between 0 and 4"):
        fold_of(100, 5)
    with pytest.raises(UserError, match="9 nodes are too few for 5 folds"):
        fold_of(9, 0)
