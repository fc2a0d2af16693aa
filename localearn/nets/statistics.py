"""Running statistics of batch normalisation, for blocks that are never trained."""

from torch import Tensor, nn

from localearn.nets.net import Net


class RunningStatistics:
    """Sets a net's running means and variances to the averages of their batch values over a pass.

    What the net held before is dropped. Blocks after the first see what precedes them normalised by each batch's own
    values, as in training; dropout is off.
    """

    def __init__(self, net: Net):
        self.net = net
        self.layers = tracking(net)
        self._batches = 0
        for layer in self.layers:
            layer.reset_running_stats()

    def add(self, x: Tensor, *context: Tensor) -> None:
        """Take in a batch, (N, *input_shape), its context beside it."""
        self.net.eval()
        self._batches += 1
        momenta = [layer.momentum for layer in self.layers]
        for layer in self.layers:
            layer.train()
            layer.momentum = 1 / self._batches  # plain averages; None would give them too, and wait for the device
        self.net.hidden(x, *context)
        for layer, momentum in zip(self.layers, momenta, strict=True):
            layer.eval()
            layer.momentum = momentum


def tracking(net: Net) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the net's batch normalisations that keep running statistics."""
    layers = (m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [m for m in layers if m.running_mean is not None]
