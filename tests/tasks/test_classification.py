"""Classification's loss, error and metrics are those of PyTorch and scikit-learn."""

import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from localearn.data import Batch
from localearn.tasks import Classification
from tests.helpers.elements import measured


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parts", [1, 4])
def test_accuracy_and_log_loss_are_scikit_learns(seed, parts):
    generator = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(37, 5, generator=generator), torch.randint(5, (37,), generator=generator)
    found = measured(Classification(5), logits, y, parts)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, logits.argmax(1)))
    assert 0 < found["accuracy"] < 1
    assert found["loss"] == pytest.approx(metrics.log_loss(y, logits.double().softmax(1), labels=range(5)), rel=1e-6)


def test_the_error_of_labels_is_softmax_minus_one_hot_bit_for_bit():
    logits, y = torch.randn(9, 4), torch.arange(9) % 4
    loss, error = Classification(4).error(logits, Batch(logits, y))
    free = logits.clone().requires_grad_()
    expected = F.cross_entropy(free, y)
    expected.backward()
    assert free.grad is not None and torch.equal(loss, expected.detach()) and torch.equal(error, free.grad)
    torch.testing.assert_close(error, (logits.softmax(1) - Classification(4).encode(y)) / 9)
    assert not loss.requires_grad and not logits.requires_grad
