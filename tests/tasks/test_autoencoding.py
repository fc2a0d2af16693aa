"""Metrics of a reconstruction, in the images' own levels."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from localearn.tasks import Autoencoding
from tests.helpers.elements import measured


@pytest.mark.parametrize("criterion", ["squared", "bce"])
@pytest.mark.parametrize("parts", [1, 4])
def test_the_metrics_of_a_reconstruction_are_in_the_unit_before_it_was_normalised(criterion, parts):
    generator = torch.Generator().manual_seed(1)
    raw = torch.randint(0, 256, (13, 2, 3, 4), generator=generator).double()
    center, scale = ((10.0, 20.0), (50.0, 70.0)) if criterion == "squared" else ((0.0, 0.0), (255.0, 255.0))
    x = (raw - torch.tensor(center).view(2, 1, 1)) / torch.tensor(scale).view(2, 1, 1)
    target = x.flatten(1)
    output = torch.randn(target.shape, generator=generator, dtype=torch.float64)
    task = Autoencoding(24, criterion, peak=255.0, center=center, scale=scale)
    seen = task.decode(output)
    shown = (output.sigmoid() if criterion == "bce" else output).view_as(raw)
    expected = shown * torch.tensor(scale).view(2, 1, 1) + torch.tensor(center).view(2, 1, 1)
    torch.testing.assert_close(seen, expected.flatten(1))
    found = measured(task, output, target, parts)
    error = metrics.mean_squared_error(raw.flatten(1), seen)
    assert found["mse"] == pytest.approx(error)
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / error))
    assert list(found) == ["loss", "psnr", "mse"] and task.direction("psnr") == "max"
    reference = F.mse_loss if criterion == "squared" else F.binary_cross_entropy_with_logits
    assert found["loss"] == pytest.approx(reference(output, target).item())
    assert list(measured(Autoencoding(24, criterion), output, target)) == ["loss", "mse"]
