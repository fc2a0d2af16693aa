"""The area under the ROC curve is scikit-learn's, however large the table."""

import math

import pytest
import torch
from sklearn import metrics

from localearn.tasks import MultiLabel
from tests.helpers.elements import labelled, measured


def test_a_label_that_no_row_or_every_row_has_is_left_out_of_the_auc_and_without_any_it_is_nan():
    logits, target = labelled(30, 4)
    target[:, 1], target[:, 3] = 0.0, 1.0
    found = measured(MultiLabel(4), logits, target)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(target[:, [0, 2]], logits[:, [0, 2]]), abs=1e-12)
    assert math.isnan(measured(MultiLabel(), logits[:, :1], torch.ones(30, 1))["auc"])


def test_the_auc_of_many_columns_is_taken_some_at_a_time(monkeypatch):
    logits, target = labelled(50, 9, tied=True)
    whole = measured(MultiLabel(9, k=0), logits, target)["auc"]
    monkeypatch.setattr("localearn.tasks.ranking._AT_ONCE", 100)
    assert measured(MultiLabel(9, k=0), logits, target)["auc"] == pytest.approx(whole, abs=1e-15)


def test_ranks_of_more_rows_than_a_float_counts_are_exact():
    rows = 300_001
    scores = torch.arange(rows, dtype=torch.float32).unsqueeze(1)
    target = (torch.arange(rows) >= rows - 3).float().unsqueeze(1)
    target[0] = 1
    assert measured(MultiLabel(), scores, target)["auc"] == pytest.approx(
        metrics.roc_auc_score(target, scores), abs=1e-12
    )
