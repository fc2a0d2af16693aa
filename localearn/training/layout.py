"""Memory format of a rule's 4-dimensional tensors: contiguous, or channels last."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from localearn.trainers.base import Trainer


def lay_out(trainer: Trainer, wanted: str, precision: str) -> Callable[[], None]:
    """Lay the rule's 4-dimensional tensors out as `Settings.memory_format` asks for.

    Only strides change. A convolution takes its maps' layout from its weights, so inputs need not be touched.

    Args:
        trainer: The rule, on the run's device.
        wanted: "auto", "channels_last" or "contiguous".
        precision: "fp32" or "bf16", by which "auto" decides on a CUDA device.

    Returns:
        A function that restores contiguous tensors.

    """
    if not _channels_last(trainer, wanted, precision):
        return lambda: None
    _to(trainer, torch.channels_last)
    return lambda: _to(trainer, torch.contiguous_format)


def _channels_last(trainer: Trainer, wanted: str, precision: str) -> bool:
    if not any(isinstance(module, nn.Conv2d) for module in trainer.modules()):
        return False
    if wanted != "auto":
        return wanted == "channels_last"
    # Measured on a CPU (results/bench/NOTES.md), where what torch.func vectorises becomes slower by it; on a GPU the
    # units that multiply bfloat16 are said to want it.
    if not trainer.likes_channels_last:
        return False
    device = next(trainer.parameters()).device.type
    return device == "cpu" or (device == "cuda" and precision == "bf16")


@torch.no_grad()
def _to(trainer: Trainer, memory_format: torch.memory_format) -> None:
    for tensor in (*trainer.parameters(), *trainer.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


def like_their_parameters(parameters: Iterable[Tensor]) -> None:
    """Lay each `.grad` out as its parameter is, which fused optimizers require.

    Args:
        parameters: The parameters; only channels_last ones of 4 dimensions are changed.

    """
    for p in parameters:
        if p.dim() == 4 and p.grad is not None and p.is_contiguous(memory_format=torch.channels_last):
            p.grad = p.grad.contiguous(memory_format=torch.channels_last)
