import sys

import numpy as np

from localearn.data import embedded


def test_the_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    arrays = embedded.digits()
    pixels, labels = load_digits(return_X_y=True)
    ours = np.concatenate([arrays["x_train"], arrays["x_test"]]).reshape(-1, 64)
    labelled = np.column_stack([ours, np.concatenate([arrays["y_train"], arrays["y_test"]])])
    expected = np.column_stack([pixels, labels]).astype(int)
    assert sorted(map(tuple, labelled.tolist())) == sorted(map(tuple, expected.tolist()))
    assert arrays["x_train"].dtype == np.uint8 and ours.min() == 0 and ours.max() == embedded.DIGITS_TOP


def test_a_stratified_fifth_of_the_digits_is_the_test():
    arrays = embedded.digits()
    assert (len(arrays["y_train"]), len(arrays["y_test"])) == (1438, 359)
    share = np.bincount(arrays["y_test"]) / np.bincount(np.concatenate([arrays["y_train"], arrays["y_test"]]))
    assert np.abs(share - 0.2).max() < 0.01
    assert all(np.array_equal(arrays[name], array) for name, array in embedded.digits().items())


def test_the_digits_come_from_scikit_learn_itself_where_its_file_lies_elsewhere(tmp_path):
    from_file = embedded.digits()
    from_function = embedded.digits(tmp_path)
    assert "sklearn.datasets" in sys.modules
    assert all(np.array_equal(from_file[name], from_function[name]) for name in from_file)


def test_the_karate_club_is_zacharys_with_every_community_in_every_split():
    club = embedded.karate()
    assert club["x"].shape == (34, 34) and club["edge_index"].shape == (2, 156)
    assert [len(club[split]) for split in ("train", "val", "test")] == [16, 8, 10]
    assert sorted(np.concatenate([club["train"], club["val"], club["test"]])) == list(range(34))
    for split in ("train", "val", "test"):
        assert set(club["y"][club[split]]) == {0, 1, 2, 3}
