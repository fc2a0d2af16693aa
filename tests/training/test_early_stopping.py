import pytest
import torch
from torch import nn

from localearn.training.early_stopping import EarlyStopping


def after(scores, *, monitor="val_accuracy", patience=None, min_delta=0.0, keep=True):
    stopping = EarlyStopping(monitor, patience, min_delta, keep=keep)
    module = nn.Linear(1, 1, bias=False)
    for epoch, score in enumerate(scores, 1):
        if stopping.done:
            return stopping, module, epoch - 1
        nn.init.constant_(module.weight, epoch)
        stopping.update({monitor: score}, epoch, module)
    return stopping, module, len(scores)


@pytest.mark.parametrize(
    ("scores", "patience", "ran"),
    [
        ([0.5, 0.4, 0.4, 0.9], 2, 3),
        ([0.5, 0.4, 0.6, 0.5, 0.5], 2, 5),
        ([0.5, 0.4], 1, 2),
        ([0.5, 0.4, 0.3, 0.9], None, 4),
        ([0.5, 0.5, 0.9], 1, 2),  # as good as before is no improvement
    ],
)
def test_patience_counts_epochs_without_an_improvement(scores, patience, ran):
    stopping, _, epochs = after(scores, patience=patience)
    assert epochs == ran
    assert stopping.done == (patience is not None)


def test_an_improvement_must_exceed_min_delta_but_the_best_is_the_best():
    # Each step of 0.04 is too small alone; the third is 0.08 above the last that counted.
    stopping, _, epochs = after([0.50, 0.54, 0.58, 0.58, 0.58], patience=2, min_delta=0.05)
    assert epochs == 5
    assert (stopping.best_score, stopping.best_epoch) == (0.58, 3)


def test_a_loss_is_best_where_least():
    stopping, _, epochs = after([2.0, 1.0, 1.5, 3.0], monitor="val_loss", patience=2)
    assert epochs == 4
    assert (stopping.best_score, stopping.best_epoch) == (-1.0, 2)


@pytest.mark.parametrize("keep", [True, False])
def test_restore_puts_the_best_weights_back_where_they_were_kept(keep):
    stopping, module, _ = after([0.1, 0.9, 0.5], keep=keep)
    assert stopping.best_epoch == 2
    stopping.restore(module)
    assert module.weight.item() == (2 if keep else 3)


def test_its_state_goes_through_a_checkpoint(tmp_path):
    stopping, module, _ = after([0.1, 0.9, 0.5], patience=2)
    torch.save(stopping.state_dict(), tmp_path / "state.pt")
    again = EarlyStopping("val_accuracy", 2, 0.0, keep=True)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    again.update({"val_accuracy": 0.9}, 4, module)
    assert again.done
    again.restore(module)
    assert module.weight.item() == 2
