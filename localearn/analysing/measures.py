"""Measures of activities: sparsity, class ensembles and their overlap, dead units, linear probes, similarity."""

import math

import torch
from torch import Tensor

RIDGE = 0.01  # of a probe, next to features of variance 1


def hoyer(h: Tensor) -> Tensor:
    """Return Hoyer's sparsity of each row: (sqrt(n) - |h|_1 / |h|_2) / (sqrt(n) - 1).

    1 where one value is not 0, 0 where all have one size; NaN for a row of zeros, which has none, and where n is 1.
    Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 5 (2004).

    Args:
        h: (N, n).

    """
    h = h.flatten(1).double()
    root = math.sqrt(h.shape[1])
    if root == 1:
        return h.new_full((len(h),), math.nan)
    return (root - h.abs().sum(1) / torch.linalg.vector_norm(h, dim=1)) / (root - 1)


def class_means(h: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean activity of each unit over the rows of a class, (C, n); NaN for one without rows.

    Args:
        h: activities, (N, n).
        labels: (N,).
        classes: C.

    """
    sums = h.new_zeros(classes, h.shape[1], dtype=torch.float64).index_add_(0, labels, h.double())
    return sums / torch.bincount(labels, minlength=classes).unsqueeze(1)


def ensembles(means: Tensor, threshold: float) -> Tensor:
    """Return the units in each class's ensemble, (C, n) bool.

    They are those whose mean exceeds `threshold` times the largest mean that a unit has for that class, so that the
    scale of activities, which differs from net to net and block to block, does not count. Where that largest mean is 0
    or less the class has none.

    Args:
        means: the units' mean activities for each class, (C, n).
        threshold: between 0 and 1.

    """
    return means > threshold * means.amax(1, keepdim=True)


def iou(sets: Tensor) -> Tensor:
    """Return the overlap of any two sets of units: the units in both over those in either, (C, C).

    NaN for two empty ones.

    Args:
        sets: (C, n) bool.

    """
    members = sets.double()
    both = members @ members.T
    sizes = members.sum(1)
    return both / (sizes.unsqueeze(1) + sizes - both)


def iou_by_chance(sets: Tensor) -> Tensor:
    """Return the overlap of any two sets of these sizes were each drawn by itself, (C, C).

    That is the intersection's mean, a b / n, over the union that it leaves.

    Args:
        sets: (C, n) bool.

    """
    sizes = sets.double().sum(1)
    both = sizes.unsqueeze(1) * sizes / sets.shape[1]
    return both / (sizes.unsqueeze(1) + sizes - both)


def dead_units(low: Tensor, high: Tensor) -> Tensor:
    """Return the units, (n,) bool, whose activity is the same for all rows, and so carries no information.

    Of rectified units these are the ones that no row turns on.

    Args:
        low: each unit's least activity, (n,).
        high: each unit's greatest activity, (n,).

    """
    return low == high


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Return the linear centered kernel alignment of two sets of features of the same rows.

        |Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F), columns centered

    1 where the one is the other rotated and scaled, 0 where no feature of the one varies with one of the other; NaN
    where nothing varies. Kornblith et al., arXiv 1905.00414, equation 5 of its linear form.

    Args:
        x: (N, n).
        y: (N, m).

    """
    return centered_cka(centered(x), centered(y))


def centered(x: Tensor) -> Tensor:
    """Return features with mean 0 over rows and a norm of 1 together, in float64.

    Args:
        x: (N, n).

    """
    x = x.double()
    x = x - x.mean(0)
    return x / torch.linalg.vector_norm(x).clamp_min(torch.finfo(x.dtype).tiny)


def centered_cka(x: Tensor, y: Tensor, x_norm: Tensor | None = None, y_norm: Tensor | None = None) -> Tensor:
    """Return `linear_cka` of features that are centered already.

    Args:
        x: `centered` features, (N, n).
        y: `centered` features, (N, m).
        x_norm: `gram_norm` of x, where it is known.
        y_norm: `gram_norm` of y, where it is known.

    """
    x_norm = gram_norm(x) if x_norm is None else x_norm
    y_norm = gram_norm(y) if y_norm is None else y_norm
    return torch.linalg.matrix_norm(y.T @ x).square() / (x_norm * y_norm)


def gram_norm(x: Tensor) -> Tensor:
    """Return |X^T X|_F, a scalar.

    Args:
        x: (N, n).

    """
    return torch.linalg.matrix_norm(x.T @ x if x.shape[1] <= len(x) else x @ x.T)


class Probe:
    """A linear classifier of features: ridge regression of one-hot labels, solved in closed form.

        W = (Z^T Z / N + ridge I)^-1 Z^T Y / N,    Z = (X - mean X) / deviation X of the N training rows

    Features that do not vary over the training rows are left out. It is scikit-learn's `RidgeClassifier` on
    standardised features with alpha = ridge N.

    Args:
        x: the training rows' features, (N, n).
        y: their labels, (N,).
        classes: C.
        ridge: as above.

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
        """Return a score of each class, (N, C).

        Args:
            x: features, (N, n).

        """
        return (x.double() - self._mean) * self._scale @ self._weight + self._bias

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Return the share of rows whose label has the largest score.

        Args:
            x: features, (N, n).
            y: labels, (N,).

        """
        return (self.scores(x).argmax(1) == y).double().mean().item()
