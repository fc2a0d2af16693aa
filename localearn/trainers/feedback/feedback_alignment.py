from torch import Tensor

from localearn.trainers.feedback.backward_path import BackwardPathTrainer
from localearn.trainers.feedback.paths import Path, drawn_like


class FeedbackAlignment(BackwardPathTrainer):
    """Feedback alignment: backprop with fixed random matrices in place of the transposed weights.

        delta_k = (delta_{k+1} B_{k+1}) * f'(z_k)      delta_k = d loss / d z_k to backprop, (N, n_k)
        dW_k = delta_k^T h_{k-1}                       B_{k+1} is (n_{k+1}, n_k), shaped as W_{k+1}, never trained

    The forward weights come to align with B, which is what makes the signal useful. B is drawn uniform with the
    deviation that W's entries have when the rule is built. In a convolution B is a kernel of W's shape, applied as the
    transposed convolution that backprop would use; so in residual blocks, around each of their convolutions.
    Lillicrap, Cownden, Tweed, Akerman (2016), Nature Communications 7:13276, "Random synaptic feedback weights support
    error backpropagation for deep learning", eq. 3; convolutions: Moskovitz, Litwin-Kumar, Abbott, arXiv 1812.06488.
    Known weakness: deep and convolutional nets, where W has too few entries to align with B.
    """

    def path(self, weight: Tensor, groups: int) -> Path:
        """Return the path through a fixed B."""
        return Fixed(weight)


class Fixed(Path):
    """B, drawn once."""

    feedback: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("feedback", drawn_like(weight))

    def forward(self, weight: Tensor) -> tuple[Tensor, None]:
        """Return B."""
        return self.feedback, None
