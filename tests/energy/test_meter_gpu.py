"""A real card, where there is one."""

import pytest
import torch

from localearn.energy import Meter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_a_busy_card_draws_more_than_an_idle_one():
    meter = Meter("cuda", idle_s=0.5)
    meter.open()
    x = torch.randn(4096, 4096, device="cuda")
    with meter.window("train"):
        for _ in range(2000):
            x = torch.tanh(x @ x)
    meter.close()
    energy = meter.report()["energy"]
    assert (energy["label"], energy["source"], energy["part"]) == ("measured", "nvml", "gpu")
    power_w = energy["train_j"] / energy["durations_s"]["train"]
    assert 5.0 < energy["parts"]["gpu"]["idle_w"]["before"] < power_w < 3000.0
    assert energy["conditions"]["uuid"].startswith("GPU-")
