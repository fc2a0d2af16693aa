"""Graphs published as archives without a split: read as torch_geometric reads them, kept, drawn, refused."""

import io
import os
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from localearn.data.npz_graphs import NPZ_GRAPHS
from localearn.data.partition import fold_of
from localearn.data.sources import load
from localearn.errors import UserError

NODES, WORDS = 60, 7


def matrices():
    """A few words a node, and edges that lead one way, a loop among them."""
    random = np.random.RandomState(0)
    words = scipy.sparse.csr_matrix((random.rand(NODES, WORDS) < 0.4) * random.randint(1, 4, (NODES, WORDS)))
    node = np.arange(NODES)
    links = scipy.sparse.csr_matrix((np.ones(NODES + 1), ([*node, 3], [*(node * 7 + 1) % NODES, 3])), (NODES, NODES))
    return words, links, node % 3


def published(name, **changes):
    """Return the file's bytes."""
    words, links, labels = matrices()
    if name == "github":
        edges = np.stack(links.tocoo().coords, 1)
        arrays = {"features": words.toarray().astype(np.float32), "edges": edges, "target": labels}
    else:
        arrays = {"labels": labels, "idx_to_node": np.array([{"a": 1}], dtype=object)}
        for of, matrix in (("attr", words), ("adj", links)):
            arrays |= {f"{of}_data": matrix.data, f"{of}_indices": matrix.indices, f"{of}_indptr": matrix.indptr}
            arrays[f"{of}_shape"] = np.array(matrix.shape)
    file = io.BytesIO()
    np.savez(file, **(arrays | changes))
    return file.getvalue()


def put(folder, name, content):
    path = folder / NPZ_GRAPHS[name][1]
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", NPZ_GRAPHS)
def test_the_published_file_is_read_as_torch_geometric_reads_it_and_kept(name, tmp_path):
    from torch_geometric.io import read_npz

    path = put(tmp_path, name, published(name))
    data = load(name, data_dir=tmp_path, normalize="none")
    (batch,) = data.batches("train", 1)
    if name == "github":
        assert np.array_equal(batch.x.numpy(), matrices()[0].toarray())
    else:
        graph: Any = read_npz(str(path))
        assert [batch.x.tolist(), batch.context[0].tolist()] == [graph.x.tolist(), graph.edge_index.tolist()]
    edges = {tuple(edge) for edge in batch.context[0].T.tolist()}
    assert edges == {(b, a) for a, b in edges} and not any(a == b for a, b in edges) and len(edges) > NODES
    assert (data.kind, data.classes, data.name) == ("graph", 3, name)
    path.unlink()
    assert load(name, data_dir=tmp_path, normalize="none").fingerprint() == data.fingerprint()
    summed = load(name, data_dir=tmp_path)
    (batch,) = summed.batches("train", 1)
    assert set(batch.x.sum(1).round(decimals=5).tolist()) <= {0.0, 1.0}


def test_splits_are_drawn_and_the_test_nodes_are_the_same_for_every_seed(tmp_path):
    put(tmp_path, "amazon_photo", published("amazon_photo"))

    def nodes(split, **options):
        (batch,) = load("amazon_photo", data_dir=tmp_path, **options).batches(split, 1)
        assert batch.index is not None
        return batch.index.tolist()

    data = load("amazon_photo", data_dir=tmp_path)
    assert data.sizes == {"train": 43, "val": 5, "test": 12} and len(data.notes) == 2
    assert sorted(nodes("train") + nodes("val") + nodes("test")) == list(range(NODES))
    assert nodes("test") == nodes("test", split_seed=1) and nodes("val") != nodes("val", split_seed=1)
    assert len(nodes("test", test_fraction=0.5)) == 30
    with pytest.raises(UserError, match="normalize=unit belongs to images and vectors; for amazon_photo"):
        load("amazon_photo", data_dir=tmp_path, normalize="unit")
    with pytest.raises(UserError, match="amazon_photo is one graph"):
        load("amazon_photo", data_dir=tmp_path, train_size=3)


@pytest.mark.parametrize("name", NPZ_GRAPHS)
def test_what_is_not_there_is_downloaded_once_and_the_archive_alone_is_kept(name, tmp_path, network):
    asked = []

    def answer(request):
        asked.append((request.full_url, request.timeout))
        return io.BytesIO(published(name))

    network(answer)
    load(name, data_dir=tmp_path / "new")
    load(name, data_dir=tmp_path / "new")
    assert asked == [(f"https://{NPZ_GRAPHS[name][0]}", 15)] and os.listdir(tmp_path / "new") == [f"{name}.npz"]


@pytest.mark.usefixtures("no_network")
def test_without_file_and_network_it_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        UserError, match=r"cora_ml is not here and could not be downloaded from github\.com/aboj"
    ) as got:
        load("cora_ml", data_dir=tmp_path / "new")
    assert "cora_ml.npz and" in str(got.value) and "cora_ml/raw/cora_ml.npz" in str(got.value)
    assert str(got.value).count("\n") == 1 and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attr_indices": np.full(9, 2)}, "attr is no matrix in compressed sparse rows"),
        ({"adj_indptr": np.arange(NODES)}, "adj is no matrix in compressed sparse rows"),
        ({"labels": np.zeros(4)}, r"its edges are of \(60, 60\), and it has 4 labels|edges are of"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, changes, message):
    path = put(tmp_path, "cora_ml", published("cora_ml", **changes))
    with pytest.raises(UserError, match=message) as caught:
        load("cora_ml", data_dir=tmp_path)
    assert str(path) in str(caught.value) and not (tmp_path / "cora_ml.npz").exists()


def test_edges_outside_the_graph_and_a_page_in_place_of_the_file_are_told(tmp_path, network):
    put(tmp_path, "github", published("github", edges=np.array([[0, 99]])))
    with pytest.raises(UserError, match=r"github\.npz: its edges lead from 0 to 99, and it has 60 nodes"):
        load("github", data_dir=tmp_path)
    network(lambda request: io.BytesIO(b"<html>moved</html>"))
    with pytest.raises(UserError, match=r"cora_ml is not here and could not be downloaded from github\.com"):
        load("cora_ml", data_dir=tmp_path)


def test_a_fold_takes_the_place_of_the_split_that_a_graph_has():
    first, second = (load("karate", fold=fold) for fold in (0, 1))
    assert first.sizes == {"train": 21, "val": 6, "test": 7}
    assert sum(first.sizes.values()) == 34
    held = [next(iter(data.batches("test", 1))).index for data in (first, second)]
    assert held[0] is not None and held[1] is not None
    assert not set(held[0].tolist()) & set(held[1].tolist())
    assert set(held[0].tolist()) == set(fold_of(34, 0)[2].tolist())
    with pytest.raises(UserError, match="fold belongs to graphs; digits is split by val_fraction"):
        load("digits", fold=0)
