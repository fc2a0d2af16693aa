"""Angles between a rule's update and the true gradient (`diagnose=alignment`)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from localearn.data import Batch
from localearn.errors import UserError
from localearn.nets.layers import preserve_modes
from localearn.nets.recurrent import use_derivatives
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent, Solve, completed


def check_alignment(trainer: Trainer) -> None:
    """Check that angles between a rule's update and the net's gradient can be computed.

    Args:
        trainer: The rule on its net.

    Raises:
        UserError: Where the rule predicts by more than its net, or solves for all of its weights.

    """
    rule = type(trainer).__name__
    if not trainer.net_predicts:
        raise UserError(
            f"diagnose=alignment compares an update with the gradient of what the net alone predicts, and {rule} "
            "predicts by more than the net; use diagnose=none"
        )
    if all(isinstance(phase, Solve) for phase in trainer.phases()):
        raise UserError(
            f"diagnose=alignment compares gradients, and {rule} as it is set solves for its weights; use diagnose=none"
        )


def alignment_angles(trainer: Trainer, batch: Batch, phase: Descent | None = None) -> dict[str, float | None]:
    """Return the angles, in degrees, between a rule's update u and the gradient g of the net's mean loss.

        angle = arccos(<u, g> / (|u| |g|))

    0 is the direction of backprop; at 90 a small step does not change the loss, and above 90 it increases it. Both are
    computed as in training, but without any dropout, whose masks would differ. The rule, its gradients and buffers,
    including running statistics, and the random number generators are left unchanged.

    Args:
        trainer: The rule on its net.
        batch: The rows on which both are computed.
        phase: The phase in training; None is the rule's first `Descent`.

    Returns:
        `angle_k` for block k, 1..L, and `angle_readout`, over all of its parameters that the phase trains; None where
        either vector is zero. A rule with paths of its own (`Trainer.path_angles`) also has `path_angle_<layer>`,
        between the weight and the matrix that replaces it in the backward pass.

    """
    phase = phase or next(found for found in trainer.phases() if isinstance(found, Descent))
    angles: dict[str, Tensor] = {}
    with _gradients_and_buffers_restored(trainer), preserve_modes(trainer), _forked_random(batch.x.device):
        trainer.eval()
        with torch.no_grad():
            h = phase.input(batch.x, *batch.context)
        trainer.train()
        phase.freeze()
        with _without_dropout(trainer):
            completed(phase.gradients(replace(batch, x=h)))
            update = _take_gradients(trainer)
            with use_derivatives(trainer.net):  # exactly, whatever the net's own setting
                loss = trainer.task.loss(trainer.net(batch.x, *batch.context), batch)
            loss.backward()
            gradient = _take_gradients(trainer)
        for name, module in _modules_by_name(trainer):
            parameters = [p for p in module.parameters() if p in update and p in gradient]
            if parameters:
                angles[name] = _angle([update[p] for p in parameters], [gradient[p] for p in parameters])
        angles |= {f"path_angle_{name}": angle for name, angle in trainer.path_angles().items()}
    if not angles:
        return {}
    degrees = torch.stack([angle.double() for angle in angles.values()]).tolist()  # the one read from the device
    return {name: None if math.isnan(angle) else angle for name, angle in zip(angles, degrees, strict=True)}


@contextmanager
def _gradients_and_buffers_restored(trainer: Trainer) -> Iterator[None]:
    """Restore gradients and buffers on exit."""
    gradients = {p: p.grad for p in trainer.parameters()}
    buffers = {name: buffer.clone() for name, buffer in trainer.named_buffers()}
    trainer.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        for p, gradient in gradients.items():
            p.grad = gradient
        with torch.no_grad():
            for name, buffer in trainer.named_buffers():
                buffer.copy_(buffers[name])


@contextmanager
def _forked_random(device: torch.device) -> Iterator[None]:
    """Draw from fixed seeds, and restore the global generators on exit."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        yield


@contextmanager
def _without_dropout(trainer: Trainer) -> Iterator[None]:
    """Disable dropout in every form: dropout layers, and modules that drop units or paths themselves.

    Such modules depend on their mode, so all but normalisation layers are in evaluation mode inside. Recurrent layers,
    which cuDNN differentiates in training mode only, stay in it, with their dropout set to 0.
    """
    recurrent = {module: module.dropout for module in trainer.modules() if isinstance(module, nn.RNNBase)}
    with preserve_modes(trainer):
        for module in trainer.modules():
            if module is not trainer and not isinstance(module, (nn.modules.batchnorm._NormBase, nn.RNNBase)):
                module.training = False
        try:
            for module in recurrent:
                module.dropout = 0.0
            yield
        finally:
            for module, dropout in recurrent.items():
                module.dropout = dropout


def _take_gradients(trainer: Trainer) -> dict[nn.Parameter, Tensor]:
    """Return the net's `.grad` by parameter, and clear it."""
    gradients = {p: p.grad for p in trainer.net.parameters() if p.grad is not None}
    trainer.zero_grad(set_to_none=True)
    return gradients


def _modules_by_name(trainer: Trainer) -> Iterator[tuple[str, nn.Module]]:
    for k in range(trainer.net.depth):
        yield f"angle_{k + 1}", trainer.net.block(k)
    yield "angle_readout", trainer.net.readout


def _angle(update: list[Tensor], gradient: list[Tensor]) -> Tensor:
    one, other = (torch.cat([g.flatten().double() for g in gradients]) for gradients in (update, gradient))
    cosine = one @ other / (one.norm() * other.norm())
    return cosine.clamp(-1, 1).acos().rad2deg()
