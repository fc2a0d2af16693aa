import math

import torch
from torch import Tensor

from localearn.nets import Net
from localearn.trainers.feedback.base import FeedbackTrainer


class DirectFeedbackAlignment(FeedbackTrainer):
    """Direct feedback alignment: a fixed random matrix brings the output error to each block at once.

        delta_k = e B_k                      (N, n_k), reshaped to h_k; B_k is (C, n_k), never trained
        B_k = B[:, :n_k] / sqrt(n_k)         B uniform in [-1, 1], (C, max n), one for all blocks

    The block's own derivative is exact. On a graph the error is zero at unlabelled nodes, so each labelled node sends
    its own signal, which the block's op spreads along its edges.
    Nokland, arXiv 1609.01596, eq. 3; one shared matrix and its scale: Launay, Poli, Krzakala, arXiv 1906.04554, sec. 2.
    Known weakness: convolutions, where random directions align poorly with the few shared weights.
    """

    feedback: Tensor

    def __init__(self, net: Net):
        super().__init__(net)
        like = next(net.parameters())
        feedback = torch.empty(net.classes, max(net.widths), device=like.device, dtype=like.dtype)
        self.register_buffer("feedback", feedback.uniform_(-1, 1))

    def signal(self, k: int, error: Tensor, h: Tensor) -> Tensor:
        """Return e B_k, shaped as h."""
        n = self.net.widths[k]
        return (error @ self.feedback[:, :n].to(error.dtype)).mul_(1 / math.sqrt(n)).view_as(h).to(h.dtype)
