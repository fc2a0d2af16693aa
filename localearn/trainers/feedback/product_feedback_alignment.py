import math
from typing import Literal

from torch import Tensor, nn

from localearn.errors import UserError
from localearn.nets import Net
from localearn.trainers.feedback.backward_path import BackwardPathTrainer
from localearn.trainers.feedback.paths import Path

Mixing = Literal["random", "orthogonal"]


class ProductFeedbackAlignment(BackwardPathTrainer):
    """Train by product feedback alignment: the error comes back through a fixed matrix and then a plastic one.

        delta_k = ((delta_{k+1} B_{k+1}) R_{k+1}) * f'(z_k)     B (n_{k+1}, m) fixed, R (m, n_k) learned
        dW_{k+1} = delta_{k+1}^T h_k                            (n_{k+1}, n_k), exact
        dR_{k+1} = (delta_{k+1} B_{k+1})^T h_k                  = B^T dW: the same Hebbian product

    R has W's optimizer and decay. Under SGD, with momentum or without, R - B^T W therefore shrinks by the decay alone:
    R tends to B^T W, and B R to B B^T W, which is W where B B^T is the identity. So no pair of units needs equal
    weights both ways. R is drawn by Glorot's uniform distribution. In a convolution R is one of W's geometry with m
    channels and B a 1x1 one.

    Li, Benna, arXiv 2405.20594. Their first epoch decays 50 times (ResNet-20) or 330 times (MNIST) as fast as the
    others, so that the matrices forget how they were drawn: schedule=step_decay. Adam rescales W and R separately, so
    they align less.

    Known cost: R takes expansion times W's memory. In Linear layers a step takes several times backprop's (7 at
    expansion 10); in convolutions hardly more, because B R is multiplied out first where that is cheaper.

    Args:
        net: a net of Linear and Conv2d layers, however they are connected.
        expansion: m / n_{k+1}, 1 or more; m is rounded up.
        feedback: "random", B uniform with deviation 1 / sqrt(m), so that B B^T is the identity on average and the
            closer to it the larger the expansion; "orthogonal", B's rows orthonormal, which is exact at expansion 1
            (the paper's PFA-o).

    Raises:
        UserError: when `expansion` is below 1.

    """

    def __init__(self, net: Net, expansion: float = 10.0, feedback: Mixing = "random"):
        if expansion < 1:
            raise UserError(f"expansion must be 1 or more, for B R to reach every W, not {expansion}")
        self.expansion = expansion
        self.feedback: Mixing = feedback
        super().__init__(net)

    def path(self, weight: Tensor, groups: int) -> Path:
        """Build the path through B and R."""
        return Product(weight, groups, self.expansion, self.feedback)


class Product(Path):
    """Send the error through B, (n_out, m / groups), and R, (m, n_in / groups, ...).

    Args:
        weight: W, (n_out, n_in / groups, ...).
        groups: the convolution's groups; 1 for a Linear.
        expansion: m / n_out, 1 or more.
        feedback: "random" or "orthogonal", as in `ProductFeedbackAlignment`.

    """

    fixed: Tensor

    def __init__(self, weight: Tensor, groups: int, expansion: float, feedback: Mixing):
        super().__init__()
        n_out = weight.shape[0]
        m = math.ceil(expansion * n_out / groups)  # of each group
        fixed = weight.new_empty(groups, n_out // groups, m)
        if feedback == "orthogonal":
            for of_group in fixed:
                nn.init.orthogonal_(of_group)
        else:
            fixed.uniform_(-math.sqrt(3 / m), math.sqrt(3 / m))
        self.register_buffer("fixed", fixed.flatten(0, 1))
        self.plastic = nn.Parameter(weight.new_empty(groups * m, *weight.shape[1:]))
        nn.init.xavier_uniform_(self.plastic)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return R and B."""
        return self.plastic, self.fixed
