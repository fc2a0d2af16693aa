"""Language modelling: its figures are those of plain formulas over the positions that count."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from localearn.data import Batch
from localearn.errors import UserError
from localearn.tasks import LanguageModelling, read_task
from localearn.tasks.language import PADDING

TOKENS = 5


def outputs(seed=0, rows=4, positions=6, padded=True):
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(rows, positions, TOKENS, generator=generator, dtype=torch.float64)
    target = torch.randint(TOKENS, (rows, positions), generator=generator)
    if padded:
        target[0, 2], target[-1, 3:] = PADDING, PADDING
    return output, target


def measured(task, output, target, parts):
    """Return the loss and the metrics of outputs that come in so many batches."""
    totals, count = task.measure(output[:0], target[:0])
    assert all(not total.any() for total in totals.values()) and count == 0
    for rows in torch.arange(len(output)).chunk(parts):
        sums, elements = task.measure(output[rows], target[rows])
        totals, count = {name: totals[name] + sums[name] for name in totals}, count + elements
    return {name: value.item() for name, value in task.finish({n: t / count for n, t in totals.items()}).items()}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_plain_formulas(seed, parts):
    output, target = outputs(seed)
    logits, y = output.numpy(), target.numpy()
    counted = [(row, t) for row, t in np.ndindex(y.shape) if y[row, t] != PADDING]
    nats = [np.log(np.exp(logits[at]).sum()) - logits[at][y[at]] for at in counted]
    hits = [logits[at].argmax() == y[at] for at in counted]
    found = measured(LanguageModelling(TOKENS, 2.5), output, target, parts)
    assert found["loss"] == pytest.approx(np.mean(nats))
    assert found["bits_per_character"] == pytest.approx(np.mean(nats) / math.log(2) / 2.5)
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(nats)))
    assert found["token_accuracy"] == pytest.approx(np.mean(hits))
    assert 0 < found["token_accuracy"] < 1


def test_losses_are_of_positions_in_every_copy_and_zero_where_padded():
    output, target = outputs()
    task = LanguageModelling(TOKENS)
    copies = torch.stack([output, output.flip(0)])
    losses = task.losses(copies, target)
    assert losses.shape == (2, *target.shape)
    assert (losses == 0).equal((target == PADDING).expand_as(losses))
    torch.testing.assert_close(losses[0], task.losses(output, target))
    torch.testing.assert_close(losses[0].sum() / (target != PADDING).sum(), task.mean_loss(output, target))


def test_the_error_is_that_of_the_mean_over_counted_positions():
    output, target = outputs()
    task = LanguageModelling(TOKENS)
    loss, error = task.error(output, Batch(output, target))
    counted = (target != PADDING).unsqueeze(-1)
    expected = (output.softmax(-1) - task.encode(target)) * counted / counted.sum()
    torch.testing.assert_close(error, expected)
    torch.testing.assert_close(loss, F.cross_entropy(output[target != PADDING], target[target != PADDING]))


def test_targets_are_encoded_as_one_hot_rows_without_those_that_are_padded():
    _, target = outputs()
    encoded = LanguageModelling(TOKENS).encode(target)
    assert encoded.shape == (*target.shape, TOKENS) and encoded.dtype == torch.float32
    assert torch.equal(encoded.sum(-1) == 1, target != PADDING)
    assert torch.equal(encoded.argmax(-1)[target != PADDING], target[target != PADDING])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.zeros(2, 3), "is torch.float32 with shape"),
        (torch.zeros(2, dtype=torch.long), r"with shape \(2,\); int64 tokens, \(N, T\), are expected"),
        (torch.full((2, 3), PADDING), "padded at every position"),
        (torch.full((2, 3), TOKENS), "holds 5; tokens run from 0 to 4"),
        (torch.full((2, 3), -1), "holds -1; tokens run from 0 to 4"),
    ],
)
def test_wrong_targets_are_refused(target, message):
    with pytest.raises(UserError, match=message):
        LanguageModelling(TOKENS).check_target("y", target)


def test_right_targets_are_taken():
    LanguageModelling(TOKENS).check_target("y", outputs()[1])


@pytest.mark.parametrize("options", [{"outputs": 0}, {"outputs": 3, "characters_per_token": 0.0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError, match=r"1 token or more|must be positive"):
        LanguageModelling(**options)


def test_it_is_read_from_what_describes_it():
    task = LanguageModelling(7, 3.25)
    assert read_task("file", task.describe()) == task
    assert task.metrics[0].name == "bits_per_character" and task.direction("bits_per_character") == "min"
