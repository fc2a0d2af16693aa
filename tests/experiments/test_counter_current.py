"""experiments/counter_current/autoencoder.py, which stands outside the package."""

import pytest
import torch

from localearn import load
from tests.helpers.programs import program


@pytest.fixture(scope="module")
def experiment():
    return program("counter_current/autoencoder.py")


def test_the_best_readout_finds_a_linear_map(experiment):
    torch.manual_seed(0)
    h, weights = torch.randn(400, 6, dtype=torch.float64), torch.randn(6, 9, dtype=torch.float64)
    target = h @ weights + 3
    torch.testing.assert_close(experiment.solved(h[:300], target[:300])(h[300:]), target[300:], rtol=0, atol=0.01)


def test_directions_count_axes_along_which_codes_vary(experiment):
    torch.manual_seed(0)
    h = torch.randn(20_000, 8, dtype=torch.float64)
    assert experiment.directions(h) == pytest.approx(8, rel=0.01)
    assert experiment.directions(h[:, :1] * torch.ones(8)) == pytest.approx(1)
    assert experiment.directions(h * torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0])) == pytest.approx(2, rel=0.01)


def test_a_setting_leaves_its_figures_and_its_record(experiment):
    data = load("digits", task="autoencoding", train_size=200)
    setting = experiment.Setting("the code", "backprop", experiment.Backprop, code=4)
    found = experiment.measured(setting, 0, 1, data)
    assert found["best readout"] > found["psnr"] > 0 and 1 <= found["directions"] <= 4
    assert found["run"]["algo"] == "Backprop" and found["run"]["epochs"] == 1
    assert "| the code | backprop | " in experiment.page([(setting, [found])], data, 1)
