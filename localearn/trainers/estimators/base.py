"""The family of rules that estimate a gradient from forward passes alone."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from localearn.data import Batch
from localearn.moved import Renamed, former_names
from localearn.nets.layers import NORMALISATIONS
from localearn.trainers.base import Trainer


class EstimatorTrainer(Trainer):
    """Define a rule that estimates: a net's loss and a module's output as pure functions, fit for `torch.func`.

    Args:
        net: a net whose layers `torch.func` can transform.

    """

    couples_ranks = False
    likes_channels_last = False  # what torch.func vectorises is slower by it: results/bench/NOTES.md

    def loss_at(self, parameters: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the task's mean loss of the net with other parameters, and its buffers as the pass leaves them.

        The buffers are copies, because a transformed function may not change what it has captured.

        Args:
            parameters: the net's, by name.
            batch: rows and targets.

        """
        buffers = {name: buffer.clone() for name, buffer in self.net.named_buffers()}
        logits = functional_call(self.net, (parameters, buffers), (batch.x, *batch.context))
        return self.task.loss(logits, batch), buffers

    @staticmethod
    @torch.no_grad()
    def write_buffers(module: nn.Module, buffers: dict[str, Tensor]) -> None:
        """Write running statistics back, as an ordinary pass would have left them.

        Args:
            module: the module whose buffers they are.
            buffers: their values, by name.

        """
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])

    keep_buffers = Renamed("write_buffers")

    @staticmethod
    def transformable_attention() -> AbstractContextManager[Any]:
        """Return a context that computes attention by plain products: the fused kernels know neither jvp nor vmap."""
        return sdpa_kernel(SDPBackend.MATH)

    @contextmanager
    def full_precision_normalisation(self) -> Iterator[None]:
        """Normalise in the parameters' own precision inside this context, under autocast, too.

        The forward-mode derivative of a normalisation of bfloat16 values is float32, which the next convolution refuses
        next to its bfloat16 input; from float32 values autocast casts both alike.
        """
        dtype = next(self.net.parameters()).dtype
        layers = [m for m in self.net.modules() if isinstance(m, NORMALISATIONS)]
        hooks = [m.register_forward_pre_hook(lambda _, args: (args[0].to(dtype), *args[1:])) for m in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
