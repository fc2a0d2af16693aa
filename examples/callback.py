"""Have code of your own called while a net trains, and log to CSV: `python examples/callback.py`.

A callback that only reads leaves the weights bit for bit as they are without it.
"""

from pathlib import Path

import torch

import localearn
from localearn.training.loggers import CSVLogger


class BlockGradients(localearn.Callback):
    """Prints the mean norm of each block's gradient, epoch by epoch, and stops a run in which one of them vanishes."""

    def __init__(self, least: float = 1e-9):
        self.least, self.norms = least, []

    def step_ended(self, context):  # nothing here waits for the device
        gradients = ([p.grad.flatten() for p in block.parameters()] for block in context.net.blocks)
        self.norms.append(torch.stack([torch.cat(parts).norm() for parts in gradients]))

    def epoch_ended(self, context):
        means = torch.stack(self.norms).mean(0).tolist()
        self.norms.clear()
        print(f"gradients in epoch {context.position.epoch}:", *(f"{mean:.2g}" for mean in means))
        if min(means) < self.least:
            context.stop(f"a block's gradient is below {self.least:g}")


torch.manual_seed(0)
data = localearn.load("digits")
net = localearn.MLP(data.input_shape, data.classes, widths=(256, 256))
record = localearn.MonoForward(net).fit(data, epochs=5, callbacks=[BlockGradients(), CSVLogger("figures.csv")])
print(record)
print("figures.csv:", Path("figures.csv").read_text().splitlines()[0])
