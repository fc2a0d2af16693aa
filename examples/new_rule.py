"""Write a learning rule of your own: `python examples/new_rule.py`.

A local rule says one thing, the loss of a block from its own output. Optimizers, epochs, early stopping, precision,
checkpoints, records and energy are there already; the conformance suite proves that no gradient crosses a block.
"""

import torch
from torch import nn

import localearn


class RandomReadouts(localearn.LocalTrainer):
    """Block k descends the loss of view(h_k) R_k^T, R_k fixed and random; the last R is the trained readout.

    Mostafa, Ramesh, Cauwenberghs, arXiv 1711.06756.
    """

    def __init__(self, net, scale: float = 1.0):
        super().__init__(net)
        self.random = nn.ModuleList(nn.Linear(n, net.classes).requires_grad_(False) for n in net.reads[:-1])
        for readout in self.random:
            readout.weight.data *= scale

    def block_loss(self, k, h, batch):
        readout = [*self.random, self.net.readout][k]
        return self.task.loss(readout(self.net.view(h)), batch)


data = localearn.load("digits")
for rule in (RandomReadouts, localearn.MonoForward, localearn.Backprop):
    torch.manual_seed(0)
    net = localearn.MLP(data.input_shape, data.classes, widths=(256, 256))
    record = rule(net).fit(data, epochs=10)
    print(f"{rule.__name__:15} test accuracy {record.metric('accuracy'):.3f}")
