import torch
import torch.nn.functional as F
from torch import nn

from localearn import MLP, Net
from localearn.nets.introspection import LinearInterceptor, LinearMap, linear_maps, unmapped_matrices


def test_maps_are_found_in_order_with_what_comes_before_them():
    layers = (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, padding="same", groups=2), nn.Flatten())
    net = Net.from_sequential(nn.Sequential(*layers, nn.Linear(6 * 36, 3)), (2, 8, 8))
    assert linear_maps(net) == [
        LinearMap("blocks.0.op.weight", inner=False, numeric=True, groups=1),
        LinearMap("blocks.1.op.weight", inner=True, numeric=False, groups=2),
        LinearMap("readout.weight", inner=True, numeric=True, groups=1),
    ]
    assert not unmapped_matrices(net, linear_maps(net))


def test_looking_changes_nothing():
    net = MLP((4,), 3, widths=(5, 5), norm="batch", dropout=0.5)
    net.block(0).requires_grad_(False)
    net.block(1).eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    flags = [p.requires_grad for p in net.parameters()]
    random = torch.get_rng_state()
    linear_maps(net)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert modes == [m.training for m in net.modules()]
    assert flags == [p.requires_grad for p in net.parameters()]
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in net.parameters())


def test_normalisations_scales_are_no_matrices_and_attention_is_one():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, h):
            return self.attention(h, h, h)[0]

    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm([3, 4]), Attention(), nn.Flatten(), nn.Linear(12, 2))
    net = Net.from_sequential(model, (3, 4))
    unmapped = unmapped_matrices(net, linear_maps(net))
    assert "blocks.1.op.attention.in_proj_weight" in unmapped
    assert not any(name.startswith("blocks.0.") for name in unmapped)


def test_a_call_is_handed_over_whatever_the_form_of_its_arguments():
    calls = []

    def instead(func, x, weight, bias, *geometry):
        calls.append((func, bias is None, geometry))
        return func(x, weight, bias, *geometry)

    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    expected = F.conv2d(x, weight, stride=2, padding=1), F.linear(x, weight[0, 0, :, :].new_ones(2, 5))
    with LinearInterceptor(instead):
        one = F.conv2d(x, weight=weight, stride=2, padding=1)
        two = F.linear(input=x, weight=weight.new_ones(2, 5))
        F.relu(one)
    assert torch.equal(one, expected[0]) and torch.equal(two, expected[1])
    assert calls == [(F.conv2d, True, (2, 1, 1, 1)), (F.linear, True, ())]
