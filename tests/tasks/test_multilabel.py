"""Metrics of several labels are scikit-learn's, ties included."""

import numpy as np
import pytest
from sklearn import metrics

from localearn.tasks import MultiLabel
from tests.helpers.elements import labelled, measured


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [2, 7, 101])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parts", [1, 3])
def test_binary_metrics_are_scikit_learns_ties_included(tied, rows, seed, parts):
    logits, target = labelled(rows, 1, seed, tied, share=0.5)
    target[0], target[1] = 0.0, 1.0
    found = measured(MultiLabel(), logits, target, parts)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(target, logits), abs=1e-12)
    assert found["log_loss"] == found["loss"] == pytest.approx(metrics.log_loss(target, logits.sigmoid()), rel=1e-9)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(target, logits > 0))
    flat = measured(MultiLabel(), logits, target.squeeze(1), parts)
    assert flat == found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("rows", "outputs", "k"), [(40, 3, 10), (25, 17, 10), (9, 5, 4), (60, 30, 1)])
@pytest.mark.parametrize("seed", range(2))
def test_metrics_of_several_labels_are_scikit_learns_ties_included(tied, rows, outputs, k, seed):
    logits, target = labelled(rows, outputs, seed, tied)
    target[0], target[1] = 0.0, 1.0  # a row without a true label, and one of true labels alone
    found = measured(MultiLabel(outputs, k=k), logits, target, parts=3)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(target, logits, average="macro"), abs=1e-12)
    columns = [metrics.log_loss(t, o.sigmoid()) for o, t in zip(logits.T, target.T, strict=True)]
    assert found["log_loss"] == pytest.approx(np.mean(columns), rel=1e-9)
    if k >= outputs:
        assert list(found) == ["loss", "auc", "log_loss"]
        return
    has = target.any(1)
    assert not has.all()
    assert list(found) == ["loss", f"recall@{k}", f"ndcg@{k}", "log_loss", "auc"]
    expected = metrics.ndcg_score(target[has].numpy(), logits[has].numpy(), k=k)
    assert found[f"ndcg@{k}"] == pytest.approx(expected, abs=1e-12)
    assert found[f"recall@{k}"] == pytest.approx(
        np.mean([recall(logits[row], target[row], k) for row in has.nonzero().flatten()])
    )


def recall(logits, target, k):
    """Return the share of the true labels among the k largest, the mean over the orders of equal ones, by counting."""
    level = sorted(logits.tolist(), reverse=True)[k - 1]
    places = k - int((logits > level).sum())
    equal = logits == level
    inside = target[logits > level].sum() + target[equal].sum() * places / equal.sum()
    return float(inside / target.sum())
