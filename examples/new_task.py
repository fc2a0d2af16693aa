"""Say what a net's output means by a task of your own: `python examples/new_task.py`.

Counts, whose logarithm the net predicts. Every rule, the loop, records and reports ask the task.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

import localearn
from localearn.tasks import Metric, Task


@dataclass(frozen=True)
class Counts(Task):
    """The output is log lambda, (M, 1), the target a count, (M, 1); the loss is Poisson's negative log-likelihood."""

    outputs: int = 1
    metrics = (Metric("nll", "min", "value"), Metric("mae", "min", "value"))

    def losses(self, output, target):
        return F.poisson_nll_loss(output, target, reduction="none").squeeze(-1)

    def encode(self, target):
        return target.clamp_min(0.5).log()

    def measure(self, output, target):
        losses, wrong = self.losses(output, target), (output.exp() - target).abs()
        return {"loss": losses.sum(), "nll": losses.sum(), "mae": wrong.sum()}, losses.new_tensor(len(losses))


torch.manual_seed(0)
x = torch.randn(600, 8)
data = localearn.data.from_arrays(x, torch.poisson((x[:, 0] + 1).exp()), task=Counts())
for rule in (localearn.MonoForward, localearn.DirectFeedbackAlignment, localearn.Backprop):
    torch.manual_seed(0)
    net = localearn.MLP(data.input_shape, 1, widths=(64, 64)).for_task(data.task)
    record = rule(net).fit(data, epochs=20)
    print(f"{rule.__name__:24}", {name: round(figures["test"], 2) for name, figures in record.metrics.items()})
