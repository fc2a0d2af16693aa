import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import nn

from localearn import UserError
from localearn.trainers.local.losses import squared_error
from localearn.trainers.local.ridge import NormalEquations


def features(rows, n, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, n, generator=generator, dtype=torch.float64) * torch.logspace(-1, 1, n, dtype=torch.float64)
    return h + 0.5, torch.arange(rows) % classes


def solved(h, y, ridge=0.01, batch_size=16, *, bias=True, classes=3):
    predictor = nn.Linear(h.shape[1], classes, bias=bias, dtype=torch.float64).requires_grad_(False)
    equations = NormalEquations(predictor, ridge)
    for start in range(0, len(h), batch_size):
        equations.add(h[start : start + batch_size], y[start : start + batch_size])
    return predictor, equations.solve()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [90, 8])  # more rows than features, and fewer
def test_it_is_the_ridge_solution_of_scikit_learn(rows, bias):
    h, y = features(rows, 20)
    predictor, loss = solved(h, y, bias=bias)
    # Its penalty stands beside the sum over the rows and is absolute.
    reference = Ridge(alpha=0.01 * rows * h.square().mean().item(), fit_intercept=bias, solver="svd")
    reference.fit(h.numpy(), np.eye(3)[y.numpy()])
    np.testing.assert_allclose(predictor.weight.numpy(), reference.coef_, rtol=1e-7, atol=1e-10)
    if bias:
        np.testing.assert_allclose(predictor.bias.numpy(), reference.intercept_, rtol=1e-7, atol=1e-10)
    error = ((reference.predict(h.numpy()) - np.eye(3)[y.numpy()]) ** 2).sum(1).mean()
    assert loss.item() == pytest.approx(error, rel=1e-9)


def test_it_minimises_the_penalised_squared_error():
    h, y = features(60, 7)
    predictor, _ = solved(h, y, ridge=0.3)
    predictor.requires_grad_(True)
    (squared_error(predictor(h), y) + 0.3 * h.square().mean() * predictor.weight.square().sum()).backward()
    for p in predictor.parameters():
        assert p.grad is not None and p.grad.abs().max() < 1e-12


@pytest.mark.parametrize("batch_size", [1, 7, 90])
def test_the_batch_size_changes_nothing_but_rounding(batch_size):
    h, y = features(90, 12)
    one, other = solved(h, y, batch_size=batch_size)[0], solved(h, y, batch_size=16)[0]
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-10, atol=1e-12)


def test_strips_of_the_matrix_change_nothing_but_rounding(monkeypatch):
    h, y = features(90, 12)
    whole = solved(h, y)[0].weight
    monkeypatch.setattr(NormalEquations, "STRIP", 5)
    torch.testing.assert_close(solved(h, y)[0].weight, whole, rtol=1e-10, atol=1e-12)


def test_float32_features_are_summed_in_float64():
    h, y = features(400, 12)
    h = h.float()
    predictor = nn.Linear(12, 3).requires_grad_(False)
    equations = NormalEquations(predictor, 1e-6)
    equations.add(h, y)
    equations.solve()
    exact = Ridge(alpha=4e-4 * h.double().square().mean().item()).fit(h.double().numpy(), np.eye(3)[y.numpy()]).coef_
    np.testing.assert_allclose(predictor.weight.numpy(), exact.astype(np.float32), rtol=1e-5, atol=1e-8)


def test_the_unit_of_the_features_changes_no_output():
    h, y = features(40, 9)
    (one, loss), (other, other_loss) = solved(h, y, bias=False), solved(1e-4 * h, y, bias=False)
    torch.testing.assert_close(one(h), other(1e-4 * h), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(loss, other_loss)


def test_features_that_are_all_zero_leave_the_bias_alone():
    predictor, loss = solved(torch.zeros(9, 4), torch.arange(9) % 3)
    assert predictor.weight.eq(0).all()
    torch.testing.assert_close(predictor.bias, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert loss.item() == pytest.approx(2 / 3)


def test_nothing_held_grows_with_the_rows():
    predictor = nn.Linear(5, 3).requires_grad_(False)
    equations = NormalEquations(predictor, 0.1)

    def held():
        return sorted(v.numel() for v in vars(equations).values() if torch.is_tensor(v))

    before = held()
    for _ in range(4):
        equations.add(torch.randn(1000, 5), torch.zeros(1000, dtype=torch.long))
    assert held() == before == [1, 6 * 3, 6 * 6]


def test_a_matrix_without_a_factor_is_told():
    h, y = features(20, 60)
    with pytest.raises(UserError, match="ridge is too small"):
        solved(h * 1e6, y, ridge=1e-30)
    h[3, 3] = torch.inf
    with pytest.raises(UserError, match="not finite"):
        solved(h, y)


def test_squared_error_sums_over_classes_and_averages_over_rows():
    z, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2])
    assert torch.allclose(squared_error(z, y), 4 * F.mse_loss(z, F.one_hot(y, 4).double()))
    assert squared_error(z.bfloat16(), y).dtype == torch.float32
