"""Memory format of a rule's 4-dimensional tensors: contiguous, or channels last."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from localearn.moved import former_names
from localearn.trainers.base import Trainer


def apply_memory_format(trainer: Trainer, memory_format: str, precision: str) -> Callable[[], None]:
    """Convert a rule's 4-dimensional tensors to the memory format of `Settings.memory_format`.

    Only strides change. A convolution's output has the format of its weights, so inputs need no conversion.

    Args:
        trainer: The rule, on the run's device.
        memory_format: "auto", "channels_last" or "contiguous".
        precision: "fp32" or "bf16", by which "auto" decides on a CUDA device.

    Returns:
        A function that makes the tensors contiguous again.

    """
    if not _channels_last(trainer, memory_format, precision):
        return lambda: None
    _convert(trainer, torch.channels_last)
    return lambda: _convert(trainer, torch.contiguous_format)


def _channels_last(trainer: Trainer, memory_format: str, precision: str) -> bool:
    if not any(isinstance(module, nn.Conv2d) for module in trainer.modules()):
        return False
    if memory_format != "auto":
        return memory_format == "channels_last"
    # Measured on a CPU (results/bench/NOTES.md), where code vectorised by torch.func becomes slower; on a GPU, NVIDIA
    # recommends it for tensor cores.
    if not trainer.likes_channels_last:
        return False
    device = next(trainer.parameters()).device.type
    return device == "cpu" or (device == "cuda" and precision == "bf16")


@torch.no_grad()
def _convert(trainer: Trainer, memory_format: torch.memory_format) -> None:
    for tensor in (*trainer.parameters(), *trainer.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=memory_format)


def match_memory_format(parameters: Iterable[Tensor]) -> None:
    """Convert each `.grad` to its parameter's memory format, which fused optimizers require.

    Args:
        parameters: The parameters, of which those of 4 dimensions in channels_last format are considered.

    """
    for p in parameters:
        if p.dim() == 4 and p.grad is not None and p.is_contiguous(memory_format=torch.channels_last):
            p.grad = p.grad.contiguous(memory_format=torch.channels_last)


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
