"""Ranking metrics, ties included: area under the ROC curve, recall at k and nDCG at k.

All are computed on the device of the outputs, without a host synchronisation.
"""

import torch
from torch import Tensor

_AT_ONCE = 2**24  # outputs whose places are held at a time


def area_under_roc(output: Tensor, target: Tensor) -> Tensor:
    """Compute the area under the ROC curve of each column, averaged over the columns that have one.

        AUC = (R - n1 (n1 + 1) / 2) / (n1 n0)

    R being the sum of the ranks of the n1 rows where the target is true among all n1 + n0 rows, equal outputs sharing
    the mean of their ranks (Mann and Whitney's U). It is exact: ranks are counted in integers.

    Args:
        output: (M, L).
        target: (M, L), or (M,) where L = 1, zeros and ones.

    Returns:
        The area, a float64 scalar (float32 on MPS); NaN where no column has both zeros and ones.

    """
    true = (target if target.dim() > 1 else target.unsqueeze(-1)) > 0.5
    step = max(1, _AT_ONCE // max(1, len(output)))
    parts = [_areas(o.T.contiguous(), t.T) for o, t in zip(output.split(step, 1), true.split(step, 1), strict=True)]
    areas, counted = (torch.cat(part) for part in zip(*parts, strict=True))
    # 0 / 0 is NaN.
    return torch.where(counted, areas, 0.0).sum() / counted.sum()


def _areas(scores: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Return the area of each row of (L, M) scores, and whether it has one."""
    ordered = scores.sort(-1).values
    below, up_to = (torch.searchsorted(ordered, scores, right=right) for right in (False, True))
    positive = true.sum(-1)
    negative = true.shape[-1] - positive
    # Twice the mean rank of equal outputs is below + 1 + up_to; twice U is an integer.
    twice = torch.where(true, below + up_to + 1, 0).sum(-1) - positive * (positive + 1)
    exact = torch.float32 if scores.device.type == "mps" else torch.float64
    pairs = (2 * positive * negative).to(exact)
    counted = pairs > 0
    return twice.to(exact) / torch.where(counted, pairs, 1.0), counted


def recall_at(output: Tensor, target: Tensor, k: int) -> Tensor:
    """Compute the share of each row's true labels that are among its k largest outputs.

    Of equal outputs at the k-th place each has the same chance to be among them.

    Args:
        output: (M, L).
        target: (M, L), zeros and ones.
        k: 1 to L.

    Returns:
        The shares, (M,); NaN where a row has no true label.

    """
    before, behind = _places(output)
    among = (behind.clamp_max(k) - before.clamp_max(k)).to(target.dtype) / (behind - before)
    return (among * target).sum(-1) / target.sum(-1)


def ndcg_at(output: Tensor, target: Tensor, k: int) -> Tensor:
    """Compute the normalised discounted cumulative gain of each row's k largest outputs.

        DCG = sum over the places j = 1..k of y_j / log2(j + 1),    nDCG = DCG / DCG of the best order

    (Jarvelin, Kekalainen, 2002.) Equal outputs share the mean of their places' discounts.

    Args:
        output: (M, L).
        target: (M, L), zeros and ones.
        k: 1 to L.

    Returns:
        The gains, (M,); NaN where a row has no true label.

    """
    before, behind = _places(output)
    places = torch.arange(output.shape[-1], device=output.device)
    discounts = torch.where(places < k, 1 / (places + 2).to(target.dtype).log2(), 0.0)
    summed = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])  # of so many first places
    gained = ((summed[behind] - summed[before]) / (behind - before) * target).sum(-1)
    return gained / summed[target.sum(-1).long()]


def _places(output: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each of a row's outputs how many are larger, and how many are as large or larger, (M, L) each."""
    ordered = output.sort(-1).values
    width = output.shape[-1]
    output = output.contiguous()
    below, up_to = (torch.searchsorted(ordered, output, right=right) for right in (False, True))
    return width - up_to, width - below
