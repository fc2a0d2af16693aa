"""Measures of activities: sparsity, class ensembles and their overlap, dead units, linear probes, similarity."""

import math

import torch
from torch import Tensor

RIDGE = 0.01  # of a probe, beside features of variance 1


def hoyer(h: Tensor) -> Tensor:
    """Return Hoyer's sparsity of each row of h, (N, n): (sqrt(n) - |h|_1 / |h|_2) / (sqrt(n) - 1).

    1 where one value is not 0, 0 where all have one size; NaN for a row of zeros, which has none, and where n is 1.
    Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 5 (2004).
    """
    h = h.flatten(1).double()
    root = math.sqrt(h.shape[1])
    if root == 1:
        return h.new_full((len(h),), math.nan)
    return (root - h.abs().sum(1) / torch.linalg.vector_norm(h, dim=1)) / (root - 1)


def class_means(h: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean activity of each unit over the rows of a class, (C, n), of h (N, n); NaN for one without rows."""
    sums = h.new_zeros(classes, h.shape[1], dtype=torch.float64).index_add_(0, labels, h.double())
    return sums / torch.bincount(labels, minlength=classes).unsqueeze(1)


def ensembles(means: Tensor, threshold: float) -> Tensor:
    """Return which units are in a class's ensemble, (C, n) bool, by the units' mean activities for it, (C, n).

    They are those whose mean exceeds `threshold` times the largest mean that a unit has for that class, so that the
    scale of activities, which differs from net to net and block to block, does not count. Where that largest mean is 0
    or less the class has none.
    """
    return means > threshold * means.amax(1, keepdim=True)


def iou(sets: Tensor) -> Tensor:
    """Return how much any two of C sets of units, (C, n) bool, share: the units in both over those in either, (C, C).

    NaN for two empty ones.
    """
    members = sets.double()
    both = members @ members.T
    sizes = members.sum(1)
    return both / (sizes.unsqueeze(1) + sizes - both)


def iou_by_chance(sets: Tensor) -> Tensor:
    """Return what any two sets of these sizes would share were each drawn by itself, (C, C).

    That is the intersection's mean, a b / n, over the union that it leaves.
    """
    sizes = sets.double().sum(1)
    both = sizes.unsqueeze(1) * sizes / sets.shape[1]
    return both / (sizes.unsqueeze(1) + sizes - both)


def dead_units(low: Tensor, high: Tensor) -> Tensor:
    """Return which units, (n,) bool, say nothing: their least and their greatest activity over all rows are the same.

    Of rectified units these are the ones that no row turns on.
    """
    return low == high


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Return the linear centered kernel alignment of two sets of features of the same N rows, (N, n) and (N, m).

        |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F), columns centered

    1 where the one is the other rotated and scaled, 0 where no feature of the one varies with one of the other; NaN
    where nothing varies. Kornblith et al., arXiv 1905.00414, equation 5 of its linear form.
    """
    return centered_cka(centered(x), centered(y))


def centered(x: Tensor) -> Tensor:
    """Return features, (N, n), with mean 0 over rows and a norm of 1 together, in float64."""
    x = x.double()
    x = x - x.mean(0)
    return x / torch.linalg.vector_norm(x).clamp_min(torch.finfo(x.dtype).tiny)


def centered_cka(x: Tensor, y: Tensor, x_norm: Tensor | None = None, y_norm: Tensor | None = None) -> Tensor:
    """Return `linear_cka` of features that are `centered`; norms: of X^T X and Y^T Y, where they are known."""
    x_norm = gram_norm(x) if x_norm is None else x_norm
    y_norm = gram_norm(y) if y_norm is None else y_norm
    return torch.linalg.matrix_norm(y.T @ x).square() / (x_norm * y_norm)


def gram_norm(x: Tensor) -> Tensor:
    """Return |X^T X|_F, a scalar, of (N, n) features."""
    return torch.linalg.matrix_norm(x.T @ x if x.shape[1] <= len(x) else x @ x.T)


class Probe:
    """A linear classifier of features: ridge regression of one-hot labels, solved in closed form.

        W = (Z^T Z / N + ridge I)^-1 Z^T Y / N,    Z = (X - mean X) / deviation X of the N training rows

    Features that do not vary over the training rows are left out. It is scikit-learn's `RidgeClassifier` on
    standardised features with alpha = ridge N.

    Example:
        accuracy = Probe(x_train, y_train, classes=10).accuracy(x_test, y_test)

    """

    def __init__(self, x: Tensor, y: Tensor, classes: int, ridge: float = RIDGE):
        x = x.double()
        variance, self._mean = torch.var_mean(x, 0, correction=0)
        self._scale = torch.where(variance > 0, variance.rsqrt(), 0.0)
        z = (x - self._mean) * self._scale
        target = torch.nn.functional.one_hot(y, classes).double()
        self._bias = target.mean(0)
        covariance = z.T @ z / len(z)
        covariance.diagonal().add_(ridge)
        self._weight = torch.linalg.solve(covariance, z.T @ target / len(z))

    def scores(self, x: Tensor) -> Tensor:
        """Return a score of each class, (N, C), for features (N, n)."""
        return (x.double() - self._mean) * self._scale @ self._weight + self._bias

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Return the share of rows whose label, (N,), has the largest score."""
        return (self.scores(x).argmax(1) == y).double().mean().item()
