"""Illustration of a completed run by its data: a picture, or lines, of what was learned."""

import torch
from torch import Tensor

from localearn.nets.layers import preserve_modes
from localearn.printing import one_line
from localearn.training.callbacks import Callback, Context
from localearn.training.runtime import autocast


class Illustration(Callback):
    """Illustrate what a completed run has learned, in its folder, by `Data.illustrate`.

    It is called after all metering and is not part of the run: a failure is reported in `lines`, and nothing else
    changes.

    Attributes:
        lines: Lines to print, empty until the run has ended.

    """

    def __init__(self) -> None:
        self.lines: tuple[str, ...] = ()

    def run_ended(self, context: Context) -> None:
        """Call `Data.illustrate` on the rank that writes the run's folder."""
        completed = context.record is not None and context.record.status == "completed"
        if not completed or context.folder is None or context.rank != 0:
            return

        device = next(context.net.parameters()).device

        def predict(x: Tensor, *inputs: Tensor) -> Tensor:
            with torch.no_grad(), autocast(device, context.settings.precision):
                return context.trainer.predict(x, *inputs).float()

        try:
            with preserve_modes(context.trainer):
                context.trainer.eval()
                self.lines = context.data.illustrate(predict, context.folder)
        except Exception as error:  # a run is not lost for a picture
            self.lines = (f"illustration failed: {type(error).__name__}: {one_line(error)}",)
