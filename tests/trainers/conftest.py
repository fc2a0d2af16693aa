from dataclasses import replace

import pytest
import torch

from localearn import CNN, GNN, MLP, Batch
from localearn.testing import toy


def _nets():
    return {
        "mlp": lambda: MLP(6, 2, widths=(7, 5, 4), activation="tanh"),
        "cnn": lambda: CNN((1, 4, 4), 2, channels=(3, 4), activation="tanh"),
        "gnn": lambda: GNN(6, 2, widths=(5, 4), dropout=0.0),
    }


@pytest.fixture(params=["mlp", "cnn", "gnn"])
def case(request) -> tuple:
    """A float64 net of each kind and a batch for it."""
    torch.manual_seed(0)
    batch = toy({"gnn": "gcn"}.get(request.param, request.param)).batch
    if request.param != "gnn":
        batch = Batch(batch.x[:6], batch.y[:6])
    return _nets()[request.param]().double(), replace(batch, x=batch.x.double())


@pytest.fixture
def vectors() -> Batch:
    """Rows (9, 5) of three classes, float64."""
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randn(9, 5, generator=generator, dtype=torch.float64), torch.arange(9) % 3)
