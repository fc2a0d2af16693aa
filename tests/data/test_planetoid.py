import collections
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from localearn.data.sources import load
from localearn.errors import UserError

TRAIN, LISTED, NODES = 8, 510, 520  # rows of x, of allx, and of allx and tx


def as_published(value):
    """Pickle a value under the names that its types had when the files were made."""
    content = pickle.dumps(value, protocol=3)
    for now, then in (
        (b"cscipy.sparse._csr\n", b"cscipy.sparse.csr\n"),
        (b"cnumpy._core.", b"cnumpy.core."),
        (b"cbuiltins\n", b"c__builtin__\n"),
    ):
        content = content.replace(now, then)
    return b"\x80\x02" + content[2:]  # a protocol at which Python 2's names are understood


def raw_files(name, words):
    """The eight files of a small graph: a ring, with the test nodes in reversed order as the real ones are shuffled."""
    labels = np.eye(3, dtype=np.int32)[np.arange(NODES) % 3]
    ring = collections.defaultdict(list, {i: [(i - 1) % NODES, (i + 1) % NODES] for i in range(NODES)})
    matrix = scipy.sparse.csr_matrix(words)
    values = {
        "x": matrix[:TRAIN],
        "tx": matrix[LISTED:],
        "allx": matrix[:LISTED],
        "y": labels[:TRAIN],
        "ty": labels[LISTED:],
        "ally": labels[:LISTED],
        "graph": ring,
    }
    files = {f"ind.{name}.{part}": as_published(value) for part, value in values.items()}
    files[f"ind.{name}.test.index"] = "".join(f"{i}\n" for i in reversed(range(LISTED, NODES))).encode()
    return files


def bag_of_words():
    words = (np.random.RandomState(0).rand(NODES, 5) < 0.4).astype(np.float32)
    words[3] = 0
    return words


def put(folder: Path, files):
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)


@pytest.mark.usefixtures("no_network")
def test_the_raw_files_are_read_with_the_public_split_and_kept(tmp_path):
    words = bag_of_words()
    put(tmp_path / "Cora" / "raw", raw_files("cora", words))
    data = load("cora", data_dir=tmp_path)
    assert (data.kind, data.classes, data.input_shape) == ("graph", 3, (5,))
    assert data.sizes == {"train": TRAIN, "val": 500, "test": NODES - LISTED}
    (batch,) = data.batches("test", 1)
    # The last rows stand in the order of the index file, which is reversed here.
    in_order = np.concatenate([words[:LISTED], words[: LISTED - 1 : -1]])
    sums = in_order.sum(1, keepdims=True)
    np.testing.assert_allclose(batch.x.numpy(), in_order / np.where(sums, sums, 1), rtol=1e-6)
    assert not batch.x[3].any()
    assert batch.nodes is not None and batch.nodes.tolist() == list(range(LISTED, NODES))
    assert batch.context[0].shape == (2, 2 * NODES)

    for file in (tmp_path / "Cora" / "raw").iterdir():
        file.unlink()
    assert load("cora", data_dir=tmp_path).fingerprint() == data.fingerprint()
    with np.load(tmp_path / "cora.npz") as archive:
        assert archive["x"].dtype == np.uint8


def test_values_that_are_no_counts_stay_as_they_are(tmp_path):
    words = np.random.RandomState(0).rand(NODES, 5).astype(np.float32)
    put(tmp_path / "PubMed" / "raw", raw_files("pubmed", words))
    (batch,) = load("pubmed", data_dir=tmp_path, normalize="none").batches("train", 1)
    assert np.array_equal(batch.x[:LISTED].numpy(), words[:LISTED])
    with np.load(tmp_path / "pubmed.npz") as archive:
        assert archive["x"].dtype == np.float32


def test_a_read_only_data_dir_works_and_stays_as_it_is(tmp_path):
    put(tmp_path / "CiteSeer" / "raw", raw_files("citeseer", bag_of_words()))
    tmp_path.chmod(0o555)
    try:
        assert load("citeseer", data_dir=tmp_path).sizes["val"] == 500
        assert os.listdir(tmp_path) == ["CiteSeer"]
    finally:
        tmp_path.chmod(0o755)


def test_it_downloads_what_is_not_there_and_keeps_the_archive_alone(tmp_path, network):
    files = raw_files("cora", bag_of_words())
    asked = []

    def answer(request):
        asked.append((request.full_url, request.timeout))
        return io.BytesIO(files[request.full_url.rpartition("/")[2]])

    network(answer)
    assert load("cora", data_dir=tmp_path).sizes["train"] == TRAIN
    assert len(asked) == 8 and all(url.startswith("https://") and timeout == 15 for url, timeout in asked)
    assert os.listdir(tmp_path) == ["cora.npz"]
    load("cora", data_dir=tmp_path)
    assert len(asked) == 8


@pytest.mark.usefixtures("no_network")
def test_without_files_and_network_it_says_what_was_looked_for(tmp_path, caplog, capfd):
    with pytest.raises(UserError, match=r"cora is not here and could not be downloaded from github\.com/") as caught:
        load("cora", data_dir=tmp_path)
    assert f"{tmp_path}/cora.npz and {tmp_path}/Cora/raw/ind.cora.*" in str(caught.value)
    assert "no route to host" in str(caught.value) and str(caught.value).count("\n") == 1
    assert os.listdir(tmp_path) == []
    told = f"cora: it is not in {tmp_path}, and is downloaded from github.com/kimiyoung/planetoid"
    assert [record.getMessage() for record in caplog.records] == [told]
    assert capfd.readouterr() == ("", "")


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_file_that_would_run_code_is_not_opened(tmp_path):
    files = raw_files("cora", bag_of_words())
    files["ind.cora.graph"] = pickle.dumps(Trap(tmp_path / "sprung"), protocol=2)
    put(tmp_path / "Cora" / "raw", files)
    with pytest.raises(UserError, match=r"ind\.cora\.graph is not the published file.*it names"):
        load("cora", data_dir=tmp_path)
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "cora.npz").exists()


def outside(words):
    """A sparse matrix whose indices point outside it: densified, it would crash the interpreter."""
    matrix = scipy.sparse.csr_matrix(words[:LISTED])
    matrix.indices[:] = 2**30
    return matrix


@pytest.mark.parametrize(
    ("part", "spoil", "message"),
    [
        ("allx", lambda content: content[: len(content) // 2], r"ind\.cora\.allx is not the published file, or is"),
        ("x", lambda _: b"", r"ind\.cora\.x is not the published file"),
        ("ty", lambda _: b"<html>not found</html>", r"ind\.cora\.ty is not the published file"),
        ("allx", lambda _: as_published(outside(bag_of_words())), r"ind\.cora\.allx .*indices"),
        ("tx", lambda _: as_published(scipy.sparse.csr_matrix(np.ones((9, 4)))), "do not fit together"),
        ("test.index", lambda _: b"510\nnot a number\n", "do not fit together"),
        ("test.index", lambda content: content[:12], r"test\.index lists 3 nodes and tx holds 10"),
        ("graph", lambda _: as_published(collections.defaultdict(list, {0: [10**6]})), "cora"),
    ],
)
def test_a_damaged_file_is_an_error_in_a_line(tmp_path, part, spoil, message):
    files = raw_files("cora", bag_of_words())
    files[f"ind.cora.{part}"] = spoil(files[f"ind.cora.{part}"])
    put(tmp_path / "Cora" / "raw", files)
    with pytest.raises(UserError, match=message) as caught:
        load("cora", data_dir=tmp_path)
    assert str(caught.value).count("\n") <= 1
    assert not (tmp_path / "cora.npz").exists()


def test_an_archive_that_lacks_arrays_is_named(tmp_path):
    np.savez(tmp_path / "cora.npz", x=np.eye(3), y=np.arange(3))
    with pytest.raises(UserError, match=r"cora\.npz lacks edge_index, train, val, test; it holds x, y"):
        load("cora", data_dir=tmp_path)


def test_the_rows_of_a_graph_are_normalised_as_asked(tmp_path):
    put(tmp_path / "Cora" / "raw", raw_files("cora", bag_of_words()))
    (standard,), (rows,), (raw,) = (
        load("cora", data_dir=tmp_path, normalize=how).batches("train", 1) for how in ("standard", "rows", "none")
    )
    assert torch.equal(standard.x, rows.x) and set(raw.x.unique().tolist()) == {0.0, 1.0}
    with pytest.raises(UserError, match="normalize=unit belongs to images and vectors; for cora"):
        load("cora", data_dir=tmp_path, normalize="unit")
