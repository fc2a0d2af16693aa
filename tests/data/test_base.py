"""A batch's rows with targets, and how many batches there are."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from localearn.data import ArrayData, Batch, load
from localearn.tasks import Classification

X, Y, EDGES = torch.arange(10.0).view(5, 2), torch.tensor([2, 0]), torch.zeros(2, 1, dtype=torch.long)
INDEX = torch.tensor([4, 1])


def test_select_takes_the_rows_of_the_targets_and_scatter_puts_them_back():
    batch = Batch(X, Y, (EDGES,), INDEX)
    assert torch.equal(batch.select(X), X[[4, 1]])
    back = batch.scatter(batch.select(X))
    assert torch.equal(back[[4, 1]], X[[4, 1]]) and not back[[0, 2, 3]].any() and back.shape == X.shape
    assert torch.equal(batch.select(back), batch.select(X))
    whole = Batch(X, torch.arange(5))
    assert torch.equal(whole.select(X), X) and torch.equal(whole.scatter(X), X)


def test_a_gradient_passes_through_both():
    batch, given = Batch(X, Y, (), INDEX), torch.ones(2, 3, requires_grad=True)
    (batch.scatter(given) * torch.arange(5.0).unsqueeze(1)).sum().backward()
    assert given.grad is not None and given.grad[:, 0].tolist() == [4.0, 1.0]


def test_the_former_names_still_do():
    batch = Batch(X, y=Y, nodes=INDEX, context=(EDGES,))
    assert batch.target is batch.y is Y and batch.index is batch.nodes is INDEX
    assert torch.equal(batch.rows(X), batch.select(X))
    fewer = replace(batch, y=Y[:1], nodes=INDEX[:1])
    assert fewer.target.tolist() == [2] and fewer.index is not None and fewer.index.tolist() == [4]
    assert replace(batch, target=Y[1:], index=INDEX[1:]).y.tolist() == [0]
    assert replace(batch, x=X + 1).target is Y


def test_it_cannot_be_changed_and_needs_a_target():
    with pytest.raises(FrozenInstanceError):
        Batch(X, Y).x = Y  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match="target"):
        Batch(X)


@pytest.mark.parametrize("rows", [1, 2, 6, 7, 8])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("split", ["train", "val"])
def test_as_many_batches_as_a_pass_has(rows, batch_size, split):
    splits = ("train", "val", "test")
    x, y = torch.zeros(rows, 2), torch.arange(rows) % 2
    data = ArrayData("rows", dict.fromkeys(splits, x), dict.fromkeys(splits, y), 2)
    generator = torch.Generator() if split == "train" else None
    assert data.num_batches(split, batch_size) == len(list(data.batches(split, batch_size, generator=generator)))


def test_a_graph_is_one_batch_and_data_are_to_be_classified_unless_they_say_otherwise():
    karate = load("karate")
    assert karate.num_batches("train", 3) == 1
    assert karate.task == Classification(karate.classes)
