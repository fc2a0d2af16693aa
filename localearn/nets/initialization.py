"""How a net's weights are drawn, by name."""

import math
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from localearn.nets.layers import choose

INITS: Mapping[str, Callable[[Tensor], object] | None] = {
    "default": None,
    "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "fan_out_normal": lambda weight: nn.init.normal_(weight, std=1 / math.sqrt(weight[:, 0].numel())),
    "glorot_uniform": nn.init.xavier_uniform_,
    "glorot_normal": nn.init.xavier_normal_,
}


def draw_weights(init: str, parts: Iterable[nn.Module]) -> None:
    """Draw the weights of all Linear layers and convolutions in `parts`, and set their biases to zero.

    he_uniform is U(-a, a), a = sqrt(6 / fan_in), and he_normal has the deviation sqrt(2 / fan_in) (He et al., arXiv
    1502.01852); glorot_uniform and glorot_normal have 6 / (fan_in + fan_out) and 2 / (fan_in + fan_out) instead
    (Glorot, Bengio 2010); fan_out_normal has 1 / sqrt(fan_out), which a port of Forward-Forward begins with. default
    leaves torch's: weights and biases U(-a, a), a = 1 / sqrt(fan_in).
    Raises UserError for another name.
    """
    draw = choose("init", init, INITS)
    if draw is None:
        return
    for part in parts:
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                draw(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
