from typing import Any

import torch
from torch import nn

from localearn import CNN, MLP
from localearn.nets.introspection import RunningStatistics, tracking


def test_running_values_become_the_average_over_the_batches():
    net = MLP(5, 2, widths=(4,), norm="batch", dropout=0.5).double()
    norm = tracking(net)[0]
    batches = torch.randn(3, 20, 5, dtype=torch.float64)
    net.train()
    net(batches[0])  # what was there before does not count
    statistics = RunningStatistics(net)
    with torch.no_grad():
        for x in batches:
            statistics.add(x)
        z = [net.block(0).op(x) for x in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in z]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in z]).mean(0))
    assert norm.momentum == 0.1
    assert not any(module.training for module in net.modules())


def test_later_blocks_see_what_precedes_them_normalised_and_without_dropout():
    net = CNN((1, 8, 8), 2, channels=(2, 3), dropout=0.5, order="norm_last").double()
    x = torch.randn(10, 1, 8, 8, dtype=torch.float64)
    statistics = RunningStatistics(net)
    with torch.no_grad():
        statistics.add(x)
        first: Any = net.block(0)
        second: Any = net.block(1)
        h = first.post[:2](first.op(x))
        h = (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        pooled = second.post[:2](second.op(h))
    torch.testing.assert_close(tracking(net)[1].running_mean, pooled.mean((0, 2, 3)))


def test_only_layers_that_keep_statistics_count():
    assert tracking(MLP(5, 2, widths=(4,), norm="layer")) == []
    net: Any = MLP(5, 2, widths=(4, 3), norm="batch")
    net.block(0).post[0] = nn.BatchNorm1d(4, track_running_stats=False)
    assert tracking(net) == [net.block(1).post[0]]
