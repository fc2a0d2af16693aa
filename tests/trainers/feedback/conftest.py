from collections.abc import Callable

import pytest
import torch
from torch import nn

from localearn import CNN, GNN, MLP, Batch, Net, ResNet

Task = tuple[Net, Batch]


def _labels(n: int) -> torch.Tensor:
    return torch.arange(n) % 3


def _rows(net: Net, n: int) -> Task:
    return net, Batch(torch.randn(n, *net.input_shape), _labels(n))


def _graph(conv: str) -> Task:
    edges = torch.randint(0, 12, (2, 40))
    return GNN(5, 3, widths=(6, 4), conv=conv, dropout=0.0), Batch(
        torch.randn(12, 5), _labels(5), (edges,), torch.tensor([0, 3, 4, 8, 11])
    )


def _grouped() -> Net:
    """Convolutions whose stride, padding, dilation and groups are not the usual ones."""
    layers = (
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.Tanh(),
        nn.Conv2d(6, 4, (1, 3), padding=(0, 1), padding_mode="circular"),
        nn.Flatten(),
        nn.Linear(4 * 16, 3),
    )
    return Net.from_sequential(nn.Sequential(*layers), (2, 8, 8))


TASKS: dict[str, Callable[[], Task]] = {
    "mlp": lambda: _rows(MLP((5,), 3, widths=(8, 7, 6)), 5),
    "mlp, more rows than units": lambda: _rows(MLP((5,), 3, widths=(8, 7, 6), norm="layer"), 16),
    "cnn": lambda: _rows(CNN((2, 8, 8), 3, channels=(4, 6)), 6),
    "grouped": lambda: _rows(_grouped(), 4),
    "gcn": lambda: _graph("gcn"),
    "sage": lambda: _graph("sage"),
    "resnet": lambda: _rows(ResNet((3, 8, 8), 3, widths=(4, 8), blocks=2), 6),
    "resnet, projections": lambda: _rows(ResNet((3, 8, 8), 3, widths=(4, 8), blocks=1, shortcut="projection"), 6),
}


@pytest.fixture(params=list(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    """A small net of every kind that the backward paths serve, with a batch for it."""
    torch.manual_seed(0)
    return TASKS[request.param]()


@pytest.fixture(params=["mlp", "grouped", "gcn", "resnet"])
def some_task(request: pytest.FixtureRequest) -> Task:
    """A few of them, for what does not depend on the kind of net."""
    torch.manual_seed(0)
    return TASKS[request.param]()


@pytest.fixture
def task64(task: Task) -> Task:
    """The same in float64."""
    net, batch = task
    return net.double(), Batch(batch.x.double(), batch.y, batch.context, batch.nodes)
