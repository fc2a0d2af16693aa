"""Feedback alignment and sign symmetry, with the backward maps that each puts in the place of W^T."""

import math
from typing import Literal

import torch
from torch import Tensor

from localearn.nets import Net
from localearn.trainers.feedback.backward_path import BackwardPathTrainer
from localearn.trainers.feedback.paths import Path, rms, uniform_like


class FeedbackAlignment(BackwardPathTrainer):
    """Train by feedback alignment: backprop with fixed random matrices in place of the transposed weights.

        delta_k = (delta_{k+1} B_{k+1}) * f'(z_k)      delta_k = d loss / d z_k to backprop, (N, n_k)
        dW_k = delta_k^T h_{k-1}                       B_{k+1} is (n_{k+1}, n_k), shaped as W_{k+1}, never trained

    The forward weights come to align with B, which is what makes the signal useful. B is drawn uniform with the
    deviation that W's entries have when the rule is built. In a convolution B is a kernel of W's shape, applied as the
    transposed convolution that backprop would use; so in residual blocks, around each of their convolutions.

    Lillicrap, Cownden, Tweed, Akerman (2016), Nature Communications 7:13276, "Random synaptic feedback weights support
    error backpropagation for deep learning", eq. 3; convolutions: Moskovitz, Litwin-Kumar, Abbott, arXiv 1812.06488.

    Known weakness: deep and convolutional nets, where W has too few entries to align with B.

    Args:
        net: a net of Linear and Conv2d layers, however they are connected.

    """

    def path(self, weight: Tensor, groups: int) -> Path:
        """Build the path through a fixed B."""
        return Fixed(weight)


class Fixed(Path):
    """Send the error through B, drawn once.

    Args:
        weight: W, (n_out, n_in, ...), whose shape and deviation B has.

    """

    feedback: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("feedback", uniform_like(weight))

    def forward(self, weight: Tensor) -> tuple[Tensor, None]:
        """Return B and no further matrix."""
        return self.feedback, None


Variant = Literal["usf", "brsf", "frsf"]


class SignSymmetry(BackwardPathTrainer):
    """Train by sign symmetry: the error comes back through the signs of the weights, with magnitudes of its own.

        delta_k = (delta_{k+1} P_{k+1}) * f'(z_k),     P = M * sign(W), shaped as W, by entries

    The signs are those of the forward pass. So this rule does read later weights, but one bit of each, and no
    magnitude.

    Liao, Leibo, Poggio, arXiv 1510.05067, section 2; the scale s: Xiao et al., arXiv 1811.03567. Of the paper's batch
    manhattan updates there is nothing here, as in the benchmark of arXiv 2108.13446.

    Args:
        net: a net of Linear and Conv2d layers, however they are connected.
        variant: "usf", uniform sign-concordant feedback: M = s, the deviation of W's entries when the rule is built;
            "brsf", batchwise random magnitudes: M = |B|, B drawn uniform with deviation s again for every batch;
            "frsf", fixed random magnitudes: B drawn once.

    """

    def __init__(self, net: Net, variant: Variant = "usf"):
        self.variant = variant
        super().__init__(net)

    def path(self, weight: Tensor, groups: int) -> Path:
        """Build the path through M * sign(W)."""
        return Redrawn(weight) if self.variant == "brsf" else Signed(weight, uniform=self.variant == "usf")


class Signed(Path):
    """Send the error through W's signs with fixed magnitudes: one for all, (), or one for each entry, shaped as W.

    Args:
        weight: W, (n_out, n_in, ...), whose deviation the magnitudes have.
        uniform: whether one magnitude serves all entries.

    """

    magnitude: Tensor

    def __init__(self, weight: Tensor, uniform: bool):
        super().__init__()
        self.register_buffer("magnitude", rms(weight) if uniform else uniform_like(weight).abs())

    def forward(self, weight: Tensor) -> tuple[Tensor, None]:
        """Return M * sign(W) and no further matrix."""
        return weight.sign() * self.magnitude, None


class Redrawn(Path):
    """Send the error through W's signs with magnitudes that are drawn at every call.

    Args:
        weight: W, (n_out, n_in, ...), whose deviation the magnitudes have.

    """

    scale: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("scale", rms(weight))

    def forward(self, weight: Tensor) -> tuple[Tensor, None]:
        """Return |B| * sign(W), B drawn again, and no further matrix."""
        magnitude = torch.rand_like(weight) * (math.sqrt(3) * self.scale)
        return weight.sign() * magnitude, None
