import numpy as np
import pytest
import torch
import torch.nn.functional as F

from localearn import Batch
from localearn.trainers.local import labels

CLASSES = 3


def test_wrong_labels_are_never_the_true_one_and_as_likely_as_they_should_be():
    """Both draws, 20,000 times; a sound sampler fails by chance with probability below 1e-6 (six deviations)."""
    draws, y = 20_000, torch.arange(4).repeat(20_000)
    logits = torch.tensor([[9.0, 1.0, 0.0, -1.0]]).repeat(len(y), 1)
    torch.manual_seed(0)
    uniform = labels.uniform_wrong_labels(y, 4)
    hard = labels.hard_wrong_labels(y, logits)
    odds = np.exp([9.0, 1.0, 0.0, -1.0])
    for true in range(4):
        others = [c for c in range(4) if c != true]
        for drawn, weights in ((uniform, np.ones(4)), (hard, odds)):
            share = torch.bincount(drawn[y == true], minlength=4).numpy() / draws
            assert share[true] == 0
            expected = weights[others] / weights[others].sum()
            deviation = np.sqrt(expected * (1 - expected) / draws)
            assert (abs(share[others] - expected) < 6 * deviation + 1e-12).all()


@pytest.mark.parametrize("kind", ["vector", "image", "maps", "graph"])
def test_labels_stand_where_they_should(kind):
    label = torch.tensor([[0.0, 1.0, 0.0]]).repeat(2, 1)
    x = {"vector": torch.rand(2, 5), "image": torch.rand(2, 1, 2, 4), "maps": torch.rand(2, 2, 4, 4)}
    if kind == "image":
        h = x["image"].flatten(1)
        shown = labels.embed(h, label, (1, 2, 4))
        assert torch.equal(shown[:, :3], label) and torch.equal(shown[:, 3:], h[:, 3:])
    elif kind == "maps":
        shown = labels.embed(x["maps"], label, (5, 4, 4))
        assert shown.shape == (2, 5, 4, 4) and torch.equal(shown[:, :2], x["maps"])
        assert (shown[:, 2:].flatten(2) == label.unsqueeze(2)).all()
    elif kind == "vector":
        shown = labels.embed(x["vector"], label, (8,))
        assert torch.equal(shown, torch.cat([x["vector"], label], 1))
    else:
        nodes = torch.tensor([7, 0, 4, 5])
        batch = Batch(torch.rand(9, 5), torch.tensor([2, 0, 1, 1]), nodes=nodes)
        shown = labels.label_rows(batch, batch.y, CLASSES, torch.float64)
        rest = [i for i in range(9) if i not in nodes.tolist()]
        assert torch.equal(shown[nodes], F.one_hot(batch.y, CLASSES).double())
        assert (shown[rest] == 1 / CLASSES).all()
