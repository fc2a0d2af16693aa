"""Nets of an image's patches against the papers' equations."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from localearn import ViT
from localearn.nets.patches import MixerLayer, PatchEmbedding, sincos_positions


def gelu(a):
    return 0.5 * a * (1 + np.vectorize(math.erf)(a / math.sqrt(2)))


def norm(layer, a):
    mean, var = a.mean(-1, keepdims=True), a.var(-1, keepdims=True)
    return (a - mean) / np.sqrt(var + layer.eps) * array(layer.weight) + array(layer.bias)


def linear(layer, a):
    return a @ array(layer.weight).T + array(layer.bias)


def array(tensor):
    return tensor.detach().numpy()


def test_a_mixer_layer_is_the_papers_equation():
    torch.manual_seed(0)
    layer = MixerLayer(5, 4, 6, 7).double()
    h = np.random.default_rng(0).normal(size=(3, 5, 4))
    u = h + np.swapaxes(linear(layer.out, gelu(linear(layer.inner, np.swapaxes(norm(layer.norm, h), 1, 2)))), 1, 2)
    channels = layer.channels
    expected = u + linear(channels.out, gelu(linear(channels.inner, norm(channels.norm, u))))
    np.testing.assert_allclose(array(layer(torch.from_numpy(h))), expected, rtol=1e-12, atol=1e-12)


def test_patches_are_maps_of_an_images_squares_with_their_places():
    torch.manual_seed(0)
    patches = PatchEmbedding((2, 4, 6), 2, 8, positions=True).double()
    x = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    h = patches(x)
    assert patches.places is not None
    assert h.shape == (3, 6, 8)
    square = x[:, :, 2:4, 4:6].flatten(1)  # the second row's third
    torch.testing.assert_close(h[:, 5], patches.map(square) + patches.places[5])
    where = sincos_positions(2, 3, 8)
    frequencies = [1.0, 1e-4]
    expected = [math.sin(2 * f) for f in frequencies] + [math.cos(2 * f) for f in frequencies]
    expected += [math.sin(1 * f) for f in frequencies] + [math.cos(1 * f) for f in frequencies]
    torch.testing.assert_close(where[5], torch.tensor(expected))
    assert not list(p for name, p in patches.named_parameters() if "places" in name)


def test_a_vision_transformer_reads_the_mean_of_its_normalised_positions():
    torch.manual_seed(0)
    net = ViT((3, 8, 8), 4, patch=4, width=8, layers=2, heads=2).eval()
    x = torch.randn(2, 3, 8, 8)
    first: Any = net.block(0).op
    h = first.stem(x)
    for op in (first.op, net.block(1).op):
        h = op(h)
    torch.testing.assert_close(net(x), net.readout(net.block(1).post(h).mean(1)))
    assert isinstance(net.block(1).post, nn.LayerNorm)
    one = ViT((3, 8, 8), 4, patch=4, width=8, layers=1, heads=2)
    assert one.depth == 1 and isinstance(one.block(0).post, nn.LayerNorm)


def test_without_their_places_patches_could_change_places():
    torch.manual_seed(0)
    net = ViT((1, 4, 4), 3, patch=2, width=8, layers=1, heads=2).eval()
    x = torch.randn(1, 1, 4, 4)
    swapped = torch.cat([x[:, :, 2:], x[:, :, :2]], dim=2)
    assert not torch.allclose(net(x), net(swapped))
