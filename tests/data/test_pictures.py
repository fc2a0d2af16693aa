"""Predicted against true: what is drawn of a regression, and of nothing else."""

import numpy as np
import pytest
import torch
from PIL import Image

from localearn.data import ArrayData, load
from localearn.data.base import Split
from localearn.data.embedded import value_data
from localearn.data.pictures import against_true
from localearn.tasks import Regression

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def points(data, outputs):
    """Return the points of each panel of a picture of outputs that are zero, in standardised units."""
    assert isinstance(data.task, Regression)
    zero = lambda batch: torch.zeros(len(batch.x), outputs)  # noqa: E731
    panels = against_true(data, data.task, zero, "test").axes
    return [np.asarray(panel.collections[0].get_offsets()) for panel in panels]


def regression(outputs, rows=30):
    random = np.random.RandomState(0)
    y = 100 + 10 * random.randn(rows, outputs) * np.arange(1, outputs + 1)
    x = random.randn(rows, 4)
    parts = {f"{letter}_{part}": values for part in ("train", "val", "test") for letter, values in (("x", x), ("y", y))}
    return value_data("values", parts, Regression(outputs=outputs)), y


@pytest.mark.parametrize(("outputs", "panels"), [(1, 1), (2, 2), (9, 6)])
def test_the_test_rows_are_drawn_in_their_own_unit_a_panel_an_output(tmp_path, outputs, panels):
    data, y = regression(outputs)
    drawn = points(data, outputs)
    assert len(drawn) == panels
    for k, panel in enumerate(drawn):
        np.testing.assert_allclose(panel[:, 0], y[:, k], rtol=1e-5)
        np.testing.assert_allclose(panel[:, 1], np.full(30, y[:, k].mean()), rtol=1e-5)


def test_it_is_written_and_told_and_names_may_hold_any_sign(tmp_path):
    data, _ = regression(2)
    data.target_names = ("price in $", "$x_1$\n\\frac \x1b 価格")
    # A rank that writes draws all rows, not its part of them.
    (told,) = data.part(0, 2).illustrate(lambda x: torch.zeros(len(x), 2), tmp_path)
    assert told == f"predicted against true values of 30 test rows: {tmp_path / 'predicted.png'}"
    with Image.open(tmp_path / "predicted.png") as picture:
        assert min(picture.size) > 300


def test_outputs_that_are_not_drawn_are_told(tmp_path):
    data, _ = regression(9)
    (told,) = data.illustrate(lambda x: torch.zeros(len(x), 9), tmp_path)
    assert "of 30 test rows, the first 6 of 9 outputs: " in told


def test_of_many_rows_some_are_drawn_from_first_to_last():
    data, y = regression(1, rows=5000)
    (panel,) = points(data, 1)
    assert len(panel) == 2000
    np.testing.assert_allclose(panel[[0, -1], 0], y[[0, -1], 0], rtol=1e-5)


def test_classes_are_not_drawn(tmp_path):
    data = load("digits", train_size=20)
    assert isinstance(data, ArrayData)
    assert data.illustrate(lambda x: torch.zeros(len(x), 10), tmp_path) == () and not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"normalize": "unit", "criterion": "bce"}, {"normalize": "none"}])
def test_images_are_drawn_above_their_reconstructions(tmp_path, options):
    data = load("digits", task="autoencoding", **options)
    images = next(data.batches("test", 8)).x
    true = (next(load("digits", normalize="none").batches("test", 8)).x / 16 * 255).round()[:, 0]
    again = images.flatten(1).logit() if "criterion" in options else images.flatten(1)
    (told,) = data.illustrate(lambda x: again.clamp(-40, 40) if "criterion" in options else again, tmp_path)
    assert told == f"8 test images above their reconstructions: {tmp_path / 'reconstructed.png'}"
    with Image.open(tmp_path / "reconstructed.png") as picture:
        drawn = np.asarray(picture)[:, :, 0]
    for top in (4 + 18, 4 + 18 + 80 + 18 + 8):
        for place in range(8):
            left = 8 + place * 88
            tile = drawn[top : top + 80 : 10, left : left + 80 : 10]
            assert np.abs(tile - true[place].numpy()).max() <= 1
