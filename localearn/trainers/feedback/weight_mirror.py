import math

import torch
from torch import Tensor, nn

from localearn.errors import Unsupported
from localearn.nets import Net


class WeightMirror(nn.Module):
    """A feedback matrix from the logits to the input that learns the net's weights from noise, without reading them.

        F = -s B_1 B_2 ... B_{L+1} / std(B_1 ... B_{L+1})      (D, C); B_k is (n_{k-1}, n_k), the readout's the last
        dB_k = -xi^T (W_k xi), xi ~ N(0, 1), (N, n_{k-1})      E[xi xi^T] = 1, so B_k grows along W_k^T

    deviation: s, at which F's entries are held. The minus makes x + F e a step down the loss.
    Akrout et al., arXiv 1904.05391; for PEPITA: Srinivasan et al., arXiv 2302.05440. Ours: the B_k follow the net's
    optimizer from the first batch on (theirs one of their own, and two epochs before the weights move), F is
    normalised where it is used, and the noise goes through a layer's linear map alone, not its activation.
    """

    def __init__(self, net: Net, deviation: float):
        super().__init__()
        maps = _maps(net)
        if not all(isinstance(layer, nn.Linear) for layer in maps):
            what = f"mirroring sends noise through Linear layers, and this {type(net).__name__} has others"
            raise Unsupported(f"{what}; use net=mlp, or mirror=false")
        self.deviation = deviation
        inner = math.prod(layer.in_features for layer in maps[1:])
        start = (deviation / math.sqrt(inner)) ** (1 / len(maps))  # the product then has this deviation
        self.factors = nn.ParameterList(torch.randn_like(layer.weight.T).mul_(start) for layer in maps)

    def forward(self) -> Tensor:
        """Return F, (D, C)."""
        product = self.factors[-1]
        for factor in reversed(list(self.factors)[:-1]):
            product = factor @ product
        return product.detach() * (-self.deviation / product.detach().std())

    @torch.no_grad()
    def gradients(self, net: Net, rows: int) -> None:
        """Fill the factors' `.grad` from `rows` rows of noise through each of the net's layers."""
        for factor, layer in zip(self.factors, _maps(net), strict=True):
            noise = torch.randn(rows, layer.in_features, device=factor.device, dtype=factor.dtype)
            factor.grad = noise.T @ nn.functional.linear(noise, layer.weight) / -rows


def _maps(net: Net) -> list[nn.Linear]:
    layers: list[nn.Module] = [*(net.block(k).op for k in range(net.depth)), net.readout]
    return layers  # pyright: ignore[reportReturnType] - checked when a mirror is built
