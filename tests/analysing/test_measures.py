"""Measures of activities against cases that are worked out by hand, and scikit-learn's classifier."""

import math

import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor

from localearn.analysing import Probe, dead_units, ensembles, hoyer, iou, iou_by_chance, linear_cka
from localearn.analysing.measures import class_means


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_sparsity_is_one_of_one_unit_and_none_of_all_alike():
    rows = torch.tensor([[0.0, 0, -3, 0], [2, 2, 2, 2], [-2, 2, 2, -2], [3, 4, 0, 0], [0, 0, 0, 0]])
    found = hoyer(rows)
    # of (3, 4, 0, 0): sqrt(4) - 7 / 5, over sqrt(4) - 1
    torch.testing.assert_close(found[:4], torch.tensor([1.0, 0, 0, 0.6], dtype=torch.float64))
    assert math.isnan(found[4]), "a row of zeros is neither"


def test_sparsity_does_not_go_by_the_size_of_a_row_but_by_all_of_its_values():
    maps = normal(5, 2, 3, 3)
    torch.testing.assert_close(hoyer(7 * maps), hoyer(maps))
    torch.testing.assert_close(hoyer(maps), hoyer(maps.flatten(1)))
    assert hoyer(torch.ones(3, 1)).isnan().all(), "of one value nothing can be said"


ACTIVITIES = torch.tensor([[4.0, 0, 1], [2.0, 0, 2], [0.0, 6, 2], [0.0, 2, 2], [0.0, 0, 0]])
LABELS = torch.tensor([0, 0, 1, 1, 2])


def test_an_ensemble_is_of_the_units_that_are_active_enough_for_a_class():
    means = class_means(ACTIVITIES, LABELS, 4)
    torch.testing.assert_close(means[:3], torch.tensor([[3, 0, 1.5], [0, 4, 2], [0, 0, 0]], dtype=torch.float64))
    assert means[3].isnan().all(), "there is no row of that class"
    assert ensembles(means[:3], 0.4).tolist() == [[True, False, True], [False, True, True], [False, False, False]]
    assert ensembles(means[:3], 0.5).tolist() == [[True, False, False], [False, True, False], [False, False, False]]
    assert torch.equal(ensembles(10 * means[:3], 0.4), ensembles(means[:3], 0.4))
    assert not ensembles(-torch.ones(1, 3), 0.5).any(), "no unit is active for a class for which all are negative"


def test_ensembles_share_what_is_in_both_over_what_is_in_either():
    sets = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]).bool()
    shared = iou(sets)
    assert shared[0, 1] == 1 / 4 and shared[1, 0] == 1 / 4 and shared[0, 2] == 0
    assert shared.diagonal()[:3].tolist() == [1, 1, 1] and shared[3, 3].isnan()
    # By chance sets of 3 and 2 of 6 units share 1 of them on average, of the 4 that are then in either.
    assert iou_by_chance(sets)[0, 1] == 1 / 4
    assert iou_by_chance(sets)[1, 2] == pytest.approx((2 / 3) / (4 - 2 / 3))


def test_sets_that_are_drawn_share_what_chance_gives():
    """By the mean over 4,000 pairs of large sets; its deviation is below 0.001, so alarms by chance below 1e-6."""
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(8000, 400, generator=generator).argsort(1)
    sets = torch.zeros(8000, 400, dtype=torch.bool)
    sets.scatter_(1, order[:, :100], True)
    one, other = sets[::2], sets[1::2]
    shares = (one & other).sum(1) / (one | other).sum(1)
    assert shares.mean().item() == pytest.approx(iou_by_chance(sets[:2])[0, 1].item(), abs=0.005)


def test_a_unit_is_dead_that_says_the_same_of_every_row():
    assert dead_units(torch.tensor([0.0, 0, -1]), torch.tensor([0.0, 2, -1])).tolist() == [True, False, True]


def test_similarity_sees_no_rotation_scale_or_offset():
    x = normal(50, 6)
    rotation, _ = torch.linalg.qr(normal(6, 6, seed=1))
    assert linear_cka(x, 3 * x @ rotation + 5).item() == pytest.approx(1, abs=1e-12)
    stretched = x @ torch.diag(torch.tensor([100.0, 1, 1, 1, 1, 1], dtype=torch.float64))
    assert linear_cka(x, stretched) < 0.7, "a stretch in one direction is no rotation"


def test_similarity_is_that_of_the_centered_kernels_whatever_the_widths():
    x, y = normal(30, 4), normal(30, 80, seed=1) + normal(30, 4) @ normal(4, 80, seed=2)
    center = torch.eye(30, dtype=torch.float64) - 1 / 30
    k, m = (center @ z @ z.T @ center for z in (x, y))
    expected = (k * m).sum() / (torch.linalg.matrix_norm(k) * torch.linalg.matrix_norm(m))
    torch.testing.assert_close(linear_cka(x, y), expected)
    torch.testing.assert_close(linear_cka(y, x), expected)


def test_features_that_do_not_vary_together_are_not_similar():
    x = torch.tensor([[1.0], [-1], [1], [-1]])
    y = torch.tensor([[1.0], [1], [-1], [-1]])
    assert linear_cka(x, y) == 0
    assert linear_cka(x, torch.ones(4, 2)).isnan(), "nothing varies"


def test_a_probe_is_the_ridge_classifier_of_standardised_units():
    x, y = normal(90, 5), torch.arange(90) % 3
    x = x * torch.tensor([1.0, 2, 3, 4, 5]) + 7 + y.unsqueeze(1) * 0.5
    x = torch.cat([x, torch.ones(90, 1)], 1)  # which never varies
    ridge = 0.05
    probe = Probe(x[:60], y[:60], 3, ridge)
    mean, deviation = x[:60, :5].mean(0), x[:60, :5].std(0, correction=0)
    z = ((x[:, :5] - mean) / deviation).numpy()
    model = RidgeClassifier(alpha=ridge * 60).fit(z[:60], y[:60].numpy())
    # Its targets are -1 and 1, ours 0 and 1.
    torch.testing.assert_close(probe.scores(x[60:]) * 2 - 1, torch.from_numpy(model.decision_function(z[60:])))
    assert probe.accuracy(x[60:], y[60:]) == pytest.approx(model.score(z[60:], y[60:].numpy()))


def test_a_probe_reads_a_class_that_a_line_parts_and_no_other():
    y = torch.arange(40) % 2
    parted = torch.stack([y * 2.0 - 1, torch.zeros(40)], 1)
    assert Probe(parted, y, 2).accuracy(parted, y) == 1
    a, b = torch.arange(40) % 2, (torch.arange(40) // 2) % 2
    both = torch.stack([a, b], 1).float()
    assert Probe(both, a ^ b, 2).accuracy(both, a ^ b) <= 0.75, "a line does not tell XOR"
