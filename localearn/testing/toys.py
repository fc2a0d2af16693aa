"""Tiny tasks, one for each kind of net and of task, that a readout on random features does not solve.

Each has several times as many rows as a net's last block has units, so that they cannot be told apart by heart either.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from localearn.data import ArrayData, Batch, Data, GraphData, Split
from localearn.nets import CNN, GNN, MLP, Net
from localearn.tasks import Regression

KINDS = ("mlp", "cnn", "gcn", "sage", "gat")
TASKS = ("classes", "values")  # the kinds of net are of classes; "values" is a regression by an MLP

CLASSES = 2
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Toy:
    """A task: `batch` is all of it, `data` holds it, and `net(shape)` builds a fresh net of two narrow blocks for it.

    shape: of the rows that the net takes, for a rule that adds to them; None: the data's own.
    """

    net: Callable[..., Net]
    batch: Batch
    data: Data


@functools.cache
def toy(kind: str) -> Toy:
    """Return the task of one of `KINDS`, or "values", a regression; float32, on the CPU, always the same."""
    if kind == "mlp":
        x, y = _exclusive_or(128)
        return _of_rows("toy vectors", lambda shape=None: MLP(shape or (6,), CLASSES, widths=(8, 8)), x, y)
    if kind == "cnn":
        x, y = _stripes(48)
        return _of_rows("toy images", lambda shape=None: CNN(shape or (1, 4, 4), CLASSES, channels=(4, 6)), x, y)
    if kind == "values":
        x, y = _exclusive_or(128)
        task, values = Regression(), 2 * y[:, None].float() - 1
        parts = dict.fromkeys(_SPLITS, x), dict.fromkeys(_SPLITS, values)
        return Toy(
            lambda shape=None: MLP(shape or (6,), 1, widths=(8, 8)).for_task(task),
            Batch(x, values),
            ArrayData("toy values", *parts, 0, task=task),
        )
    if kind not in KINDS:
        raise ValueError(f"no toy of kind {kind!r}; there are {', '.join((*KINDS, 'values'))}")
    return _graph(kind)


def _of_rows(name: str, net: Callable[..., Net], x: Tensor, y: Tensor) -> Toy:
    return Toy(net, Batch(x, y), ArrayData(name, dict.fromkeys(_SPLITS, x), dict.fromkeys(_SPLITS, y), CLASSES))


def _exclusive_or(n: int) -> tuple[Tensor, Tensor]:
    """Vectors (n, 6): the class is whether the signs of the first two entries agree; the others are noise."""
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    x[:, :2] += x[:, :2].sign()
    return x, (x[:, 0] * x[:, 1] > 0).long()


def _stripes(n: int) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 4, 4) of stripes with a random phase, in noise: the class is which way they run."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % CLASSES
    phase = 2 * torch.pi * torch.rand(n, 1, 1, generator=generator)
    upright = torch.sin(2.1 * torch.arange(4) + phase).expand(n, 4, 4)
    x = torch.where(y.view(-1, 1, 1) == 0, upright, upright.transpose(1, 2))
    return (x + 0.4 * torch.randn(n, 4, 4, generator=generator)).unsqueeze(1), y


def _graph(conv: str) -> Toy:
    # The exclusive-or again: a ring goes through the nodes of each quadrant, and half of them are labelled.
    n = 256
    quadrant, node = torch.arange(n) % 4, torch.arange(n)
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    x[:, 0] += 2.5 * (quadrant % 2) - 1.25
    x[:, 1] += 2.5 * (quadrant // 2) - 1.25
    y = (quadrant % 2 == quadrant // 2).long()
    edges = torch.stack([torch.cat([node, node]), torch.cat([(node + 4) % n, (node - 4) % n])])
    labelled = node[node // 4 % 2 == 0]
    data = GraphData("toy graph", x, edges, y, dict.fromkeys(_SPLITS, labelled), CLASSES)
    return Toy(
        lambda shape=None: GNN(shape or (6,), CLASSES, widths=(8, 8), conv=conv, dropout=0.0, heads=2),
        Batch(x, y[labelled], (edges,), labelled),
        data,
    )
