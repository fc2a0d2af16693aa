"""Loss and accuracy over a split are those of all of its rows, however they come in batches."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from localearn import load
from localearn.data import ArrayData
from localearn.tasks import Classification, MultiLabel
from localearn.training.evaluate import evaluate, measure_of
from localearn.training.runtime import autocast

EXACT = autocast(torch.device("cpu"), "fp32")
ROWS = 23
TASK = Classification(4)


@pytest.fixture
def data():
    """Rows of which each is its own scores, (N, 4)."""
    torch.manual_seed(0)
    x = {split: torch.randn(ROWS, 4) for split in ("train", "val", "test")}
    y = {split: torch.randint(0, 4, (ROWS,)) for split in x}
    data = ArrayData("scores", x, y, 4)  # pyright: ignore[reportArgumentType]
    return data, x["test"], y["test"]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_they_are_those_of_every_row(data, batch_size):
    whole, scores, labels = data
    found = evaluate(measure_of(lambda x: x, EXACT, TASK), TASK, whole, "test", batch_size, lambda tensors: None)
    hits = sum(row.tolist().index(max(row.tolist())) == label for row, label in zip(scores, labels, strict=True))
    losses = [row.exp().sum().log() - row[label] for row, label in zip(scores, labels, strict=True)]
    assert found["accuracy"] == pytest.approx(hits / ROWS)
    assert 0 < hits < ROWS
    assert found["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_ranks_add_their_shares(data):
    whole, *_ = data
    expected = evaluate(measure_of(lambda x: x, EXACT, TASK), TASK, whole, "test", 6, lambda tensors: None)
    shares = []
    for rank in range(3):
        evaluate(
            measure_of(lambda x: x, EXACT, TASK),
            TASK,
            whole.part(rank, 3),
            "test",
            6,
            lambda own: shares.append(own[0].clone()),
        )

    def add(tensors):
        tensors[0].copy_(sum(shares))

    found = evaluate(measure_of(lambda x: x, EXACT, TASK), TASK, whole.part(0, 3), "test", 6, add)
    assert found == pytest.approx(expected)


@pytest.fixture
def binary():
    """Rows of which each is its own score, (N, 1), with ties."""
    torch.manual_seed(0)
    x = {split: torch.randn(ROWS, 1).mul(2).round() for split in ("train", "val", "test")}
    y = {split: (torch.arange(ROWS) % 3 == 0).float().unsqueeze(1) for split in x}
    return ArrayData("scores", x, y, 0, task=MultiLabel()), x["test"], y["test"]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
@pytest.mark.parametrize("replayed", [False, True])
def test_a_metric_of_a_whole_split_has_all_of_its_rows(binary, batch_size, replayed):
    whole, scores, labels = binary
    measure, memory = measure_of(lambda x: x, EXACT, MultiLabel()), torch.empty(100, 1)

    def in_one_place(batch):
        """Measure as a replayed graph does, whose next outputs overwrite those of before."""
        sums, output = measure(batch)
        assert output is not None
        return sums, memory[: len(output)].copy_(output)

    found = evaluate(
        in_one_place if replayed else measure, MultiLabel(), whole, "test", batch_size, lambda tensors: None
    )
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["accuracy"] == pytest.approx(((scores > 0) == (labels > 0)).float().mean().item())


@pytest.mark.parametrize("ranks", [2, 3, 16])
def test_ranks_join_their_rows_of_which_some_have_fewer_or_none(binary, ranks):
    whole, scores, labels = binary
    measure, sums, rows = measure_of(lambda x: x, EXACT, MultiLabel()), [], []

    def keep(own):
        rows.append(own.clone())
        return own

    for rank in range(ranks):
        evaluate(
            measure, MultiLabel(), whole.part(rank, ranks), "test", 6, lambda own: sums.append(own[0].clone()), keep
        )
    joined = iter([torch.cat(rows[::2]), torch.cat(rows[1::2])])  # the outputs of all, and their targets
    assert {len(part) for part in rows} > {0} or ranks < 16

    def add(tensors):
        tensors[0].copy_(sum(sums))

    found = evaluate(measure, MultiLabel(), whole.part(0, ranks), "test", 6, add, lambda own: next(joined))
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_of_a_graph_only_the_splits_nodes_count():
    karate = load("karate")
    batch = next(karate.batches("test", 1))
    assert batch.nodes is not None
    scores = torch.randn(len(batch.x), karate.classes)
    scores[batch.nodes] = 0.0
    scores[batch.nodes, batch.y] = 9.0
    scores[batch.nodes[0]] *= -1
    found = evaluate(
        measure_of(lambda x, edges: scores, EXACT, karate.task), karate.task, karate, "test", 1, lambda tensors: None
    )
    assert found["accuracy"] == pytest.approx(1 - 1 / len(batch.y))
