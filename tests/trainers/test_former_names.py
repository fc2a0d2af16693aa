"""Checkpoints of earlier releases: the names of tensors and modules that they have, loaded and recognised."""

from collections.abc import Callable

import pytest
import torch

from localearn import GNN, MLP, ForwardGNN, LocalLoss, Mixer, Net, Trainer, Transformer
from localearn.nets import DeepFM
from localearn.testing import probes
from localearn.trainers.former_names import former_description
from localearn.training.checkpoint import check_weights, saved_once


def low_rank() -> Trainer:
    net = Transformer((4,), 5, vocabulary=5, layers=2, width=8, heads=2)
    return LocalLoss(net, head="low_rank", rank=2)


def top_down() -> Trainer:
    return ForwardGNN(GNN(6, 3, widths=(4, 4), heads=1), schedule="joint", top_down="loss")


@pytest.mark.parametrize(
    ("make", "present", "former"),
    [(low_rank, "heads.0.adapter.", "heads.0.beside."), (top_down, "signals.stored_", "signals.told_")],
)
def test_tensors_are_loaded_by_their_former_names(make: Callable[[], Trainer], present: str, former: str):
    trainer, fresh = make(), make()
    with torch.no_grad():
        for tensor in trainer.state_dict().values():
            tensor.add_(1)
    saved = {name.replace(present, former): value for name, value in trainer.state_dict().items()}
    assert any(name.startswith(former) for name in saved)
    check_weights("a checkpoint", saved_once(saved, fresh), fresh.state_dict())  # as its best weights are
    fresh.load_state_dict(saved)
    assert not probes.differing(trainer.state_dict(), fresh.state_dict())


def test_a_state_of_this_release_is_loaded_as_it_is():
    trainer, fresh = low_rank(), low_rank()
    fresh.load_state_dict(trainer.state_dict())
    assert not probes.differing(trainer.state_dict(), fresh.state_dict())


@pytest.mark.parametrize(
    ("described", "former"),
    [
        (lambda: low_rank(), "(beside): Sequential("),
        (lambda: Mixer((1, 4, 4), 2, patch=2, width=8, layers=2, token_hidden=4, channel_hidden=4), "Patches("),
        (lambda: DeepFM(4, 2, categories=(3, 3), dim=4, widths=(8,)), "(op): Embeddings("),
        (lambda: LocalLoss(MLP(8, 3, widths=(8, 8))), "Read()"),
    ],
)
def test_a_rule_is_described_as_it_was(described: Callable[[], Trainer | Net], former: str):
    text = repr(described())
    assert former not in text and former in former_description(text)
