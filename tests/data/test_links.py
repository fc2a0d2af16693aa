"""Edges held out: which pairs are judged, and which edges a net may see."""

import numpy as np
import pytest
import torch

from localearn import UserError
from localearn.data import LinkData, links
from localearn.data.links import split_links


def codes(pairs, nodes):
    return set((pairs[:, 0] * nodes + pairs[:, 1]).tolist())


def ring(nodes=40):
    at = np.arange(nodes)
    return np.stack([np.concatenate([at, (at + 1) % nodes]), np.concatenate([(at + 1) % nodes, at])])


def test_every_edge_is_judged_once_and_as_many_other_pairs():
    pairs, targets, _ = split_links("ring", ring(), 40, 0.16, 0.2, seed=3)
    assert {s: len(t) for s, t in targets.items()} == {"train": 52, "val": 12, "test": 16}
    edges = codes(np.sort(ring().T, axis=1), 40)
    positive = [codes(pairs[s][targets[s] == 1], 40) for s in pairs]
    negative = [codes(pairs[s][targets[s] == 0], 40) for s in pairs]
    assert set.union(*positive) == edges and sum(map(len, positive)) == 40
    assert sum(map(len, negative)) == len(set.union(*negative)) == 40
    assert not set.union(*negative) & edges
    assert all((p[:, 0] < p[:, 1]).all() for p in pairs.values())


def test_messages_pass_along_training_edges_and_at_the_test_along_validation_edges_too():
    pairs, targets, seen = split_links("ring", ring(), 40, 0.16, 0.2, seed=3)
    own = {split: codes(pairs[split][targets[split] == 1], 40) for split in pairs}
    of = {split: codes(np.sort(edges.T, axis=1), 40) for split, edges in seen.items()}
    assert of["train"] == of["val"] == own["train"]
    assert of["test"] == own["train"] | own["val"]
    for edges in seen.values():
        both = {tuple(edge) for edge in edges.T.tolist()}
        assert {(v, u) for u, v in both} == both


def test_edges_of_one_direction_loops_and_doubles_count_once():
    u, v = np.sort(ring(), axis=0)
    once = np.stack([np.append(u, 7), np.append(v, 7)])
    for one, other in zip(
        split_links("ring", ring(), 40, 0.16, 0.2, 0), split_links("ring", once, 40, 0.16, 0.2, 0), strict=True
    ):
        assert all(np.array_equal(one[split], other[split]) for split in one)


def test_a_seed_draws_another_split_and_the_fingerprint_tells():
    one, same, other = (links(split_seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_batches_are_the_whole_graph_with_pairs_of_rows():
    data = links()
    batch = next(data.batches("train", 8))
    assert isinstance(data, LinkData) and batch.index is not None
    assert batch.index.shape == (len(batch.target), 2)
    assert batch.select(batch.x).shape == (len(batch.target), 2, batch.x.shape[1])
    assert torch.equal(batch.select(batch.x)[3, 1], batch.x[batch.index[3, 1]])
    assert data.to("cpu").sizes == {"train": 102, "val": 24, "test": 30}


def test_refuses_what_cannot_be_split():
    with pytest.raises(UserError, match="unknown graph 'karat'; did you mean 'karate'"):
        links("karat")
    with pytest.raises(UserError, match="too few for val_fraction and test_fraction"):
        split_links("ring", ring(3), 3, 0.16, 0.2, 0)
    full = np.stack(np.nonzero(1 - np.eye(8, dtype=int)))
    with pytest.raises(UserError, match="joins more than half of its pairs"):
        split_links("all", full, 8, 0.16, 0.2, 0)
