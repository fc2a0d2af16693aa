import numpy as np
import pytest
import torch

from localearn.trainers.local.losses import sparsemax, sparsemax_loss


def projected(z):
    """Project a vector onto the simplex by bisection of tau: sum max(z - tau, 0) = 1."""
    low, high = z.max() - 1.0, z.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(z - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(z - (low + high) / 2, 0), (low + high) / 2


CASES = {
    "random": np.random.default_rng(0).normal(size=(50, 10)) * np.random.default_rng(1).uniform(0.01, 5, size=(50, 1)),
    "ties": np.array([[0.0, 0.0, 0.0], [1.0, 1.0, -3.0], [2.0, 2.0, 1.0]]),
    "a vertex": np.array([[5.0, 1.0, 0.0], [-1.0, 0.0, -4.0]]),
    "two classes": np.random.default_rng(2).normal(size=(20, 2)),
    "one class": np.array([[3.0]]),
}


@pytest.mark.parametrize("case", CASES)
def test_it_projects_onto_the_simplex(case):
    z = CASES[case]
    expected = np.stack([projected(row)[0] for row in z])
    np.testing.assert_allclose(sparsemax(torch.tensor(z)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_loss_and_its_gradient_are_the_papers(case):
    z = CASES[case]
    y = np.arange(len(z)) % z.shape[1]
    losses, gradients = [], []
    for row, label in zip(z, y, strict=True):
        p, tau = projected(row)
        support = p > 1e-13
        losses.append(-row[label] + 0.5 * (row[support] ** 2 - tau**2).sum() + 0.5)
        gradients.append(p - np.eye(len(row))[label])
    scores = torch.tensor(z, requires_grad=True)
    loss = sparsemax_loss(scores, torch.tensor(y))
    loss.backward()
    assert scores.grad is not None
    assert loss.item() == pytest.approx(np.mean(losses), abs=1e-12)
    np.testing.assert_allclose(scores.grad.numpy(), np.stack(gradients) / len(z), atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    z = torch.tensor(CASES["random"][:8], requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: sparsemax_loss(s, torch.arange(8)), z)


def test_the_loss_is_zero_from_a_margin_of_one():
    z = torch.tensor([[2.0, 1.0, 0.5], [1.0, 0.1, 0.0]], dtype=torch.float64)
    assert sparsemax_loss(z[:1], torch.tensor([0])).item() == 0
    assert sparsemax_loss(z[1:], torch.tensor([0])).item() > 0


def test_large_scores_and_low_precision():
    z = torch.tensor([[1e20, 0.0, -1e20], [3e8, 3e8, 0.0]])
    torch.testing.assert_close(sparsemax(z), torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    assert sparsemax_loss(z.bfloat16(), torch.tensor([0, 0])).dtype == torch.float32
    assert sparsemax_loss(torch.full((1, 3), torch.nan), torch.tensor([0])).isnan()
