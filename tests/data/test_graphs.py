import pytest
import torch

from localearn.data.graphs import GraphData
from localearn.errors import UserError


def ring(**changes):
    """Six nodes in a ring, two to each split."""
    index = torch.arange(6)
    parts = {
        "x": torch.eye(6),
        "edge_index": torch.stack([index, (index + 1) % 6]),
        "y": index % 2,
        "nodes": {"train": torch.tensor([4, 1]), "val": torch.tensor([0, 3]), "test": torch.tensor([5, 2])},
        **changes,
    }
    return GraphData("ring", **parts, classes=2)


def test_it_says_what_it_holds():
    data = ring()
    assert (data.kind, data.classes, data.input_shape, data.augmented) == ("graph", 2, (6,), False)
    assert data.sizes == {"train": 2, "val": 2, "test": 2}


@pytest.mark.parametrize(("split", "nodes"), [("train", [4, 1]), ("val", [0, 3]), ("test", [5, 2])])
def test_the_one_batch_is_the_whole_graph_and_the_nodes_of_the_split(split, nodes):
    (batch,) = ring().batches(split, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(batch.x, torch.eye(6))
    assert torch.equal(batch.context[0], ring().batches("val", 1).__next__().context[0])
    assert batch.nodes is not None and batch.nodes.tolist() == nodes
    assert batch.y.tolist() == [node % 2 for node in nodes]
    assert torch.equal(batch.rows(batch.x), torch.eye(6)[nodes])


def test_nothing_is_random_in_it_and_skipping_leaves_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert len(list(ring().batches("train", 9, generator=generator))) == 1
    assert list(ring().batches("train", 9, generator=generator, skip=1)) == []
    assert torch.equal(generator.get_state(), before)


def test_features_replace_x_and_keep_the_graph():
    data = ring()
    weight = torch.randn(6, 3, requires_grad=True)

    def mean_of_neighbours(x, edge_index):
        return torch.zeros(6, 3).index_add(0, edge_index[1], (x @ weight)[edge_index[0]])

    features = data.features("layer 1", mean_of_neighbours, 1)
    (batch,) = features.batches("train", 1)
    (whole,) = data.batches("train", 1)
    assert torch.equal(batch.x, mean_of_neighbours(whole.x, *whole.context).detach()) and not batch.x.requires_grad
    assert torch.equal(batch.context[0], whole.context[0]) and torch.equal(batch.y, whole.y)
    assert (features.name, features.input_shape, features.sizes) == ("layer 1", (3,), {"train": 2, "val": 2})
    with pytest.raises(ValueError, match="layer 1 has no test split"):
        features.batches("test", 1)


def test_the_fingerprint_changes_with_every_part_and_with_nothing_else():
    data = ring()
    assert data.fingerprint() == ring().fingerprint() == data.to("cpu").fingerprint() == data.fingerprint()
    nodes = {"train": torch.tensor([4, 1]), "val": torch.tensor([0, 3]), "test": torch.tensor([2, 5])}
    others = [
        ring(x=torch.eye(6) * 2),
        ring(edge_index=ring()._edge_index.flip(0)),
        ring(y=1 - ring()._y),
        ring(nodes=nodes),
        ring(note="rows"),
    ]
    assert len({data.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def test_a_batch_size_below_1_is_refused():
    with pytest.raises(UserError, match="batch_size is 0"):
        ring().batches("train", 0)
