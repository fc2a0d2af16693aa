import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.nets import Net
from localearn.trainers.feedback.base import FeedbackTrainer

Scale = Literal["widest", "width"]
Feedback = Literal["position", "kernel"]


class DirectFeedbackAlignment(FeedbackTrainer):
    """Train by direct feedback alignment: a fixed random matrix brings the output error to each block at once.

        delta_k = e B_k                       (N, n_k), spread over h_k by the net's view; B_k (C, n_k), never trained;
                                              of positions each for itself, (N, T, C) B_k, B_k (C, D), as at scale
        B_k = B[:, :n_k] / s_k                B uniform in [-1, 1], (C, max n), one for all blocks

    The block's own derivative is exact. On a graph the error is zero at unlabelled nodes, so each labelled node sends
    its own signal, which the block's op spreads along its edges.

    Nokland, arXiv 1609.01596, eq. 3; one shared matrix and its scale: Launay, Poli, Krzakala, arXiv 1906.04554, sec. 2;
    each token's error: Launay, Poli, Boniface, Krzakala, arXiv 2006.12878, whose transformer has its signals after
    every layer ("macro") or after each of a layer's parts ("micro"), which here is what the net makes a block of;
    kernels: Sanfiz, Akrout, arXiv 2108.13446, whose signals go to every convolution, ours to every block's output.

    Known weakness: convolutions, where random directions align poorly with the few shared weights.

    Args:
        net: any net.
        scale: s_k = sqrt(max n) for all blocks ("widest", as the source has it), or sqrt(n_k), with which all signals
            have the same length ("width"). On LeNet-5 the last block's signal is 3.7 times as large by "width".
        feedback: what B_k is where the next block convolves h_k, (n, H, W) maps. "position": as above, a number for
            each place. "kernel": K_k (C, n, k, k), of that convolution's geometry and drawn by Glorot's uniform
            distribution, spread over the map as the convolution's own backward pass would spread an error that is e at
            every place: B_k[c] = conv_transpose(1, K_k[c]), constant but near the borders, as BioTorch has it. Other
            blocks, the last one among them, have "position".

    """

    serves_pairs = True
    feedback: Tensor

    def __init__(self, net: Net, scale: Scale = "widest", feedback: Feedback = "position"):
        super().__init__(net)
        like = next(net.parameters())
        widest = max(net.reads)
        drawn = torch.empty(net.classes, widest, device=like.device, dtype=like.dtype)
        self.register_buffer("feedback", drawn.uniform_(-1, 1))
        self.scales = [1 / math.sqrt(widest if scale == "widest" else n) for n in net.reads]
        self.spread = set[int]()  # the blocks whose B_k is a kernel's
        for k in range(net.depth - 1) if feedback == "kernel" else ():
            convolution = next((m for m in net.block(k + 1).modules() if isinstance(m, nn.Conv2d)), None)
            if convolution is not None and len(net.shapes[k]) == 3:
                self.register_buffer(f"spread_{k}", _spread(convolution, net.classes, net.shapes[k]).to(like))
                self.spread.add(k)

    def signal(self, k: int, error: Tensor, h: Tensor) -> Tensor:
        """Return e B_k, shaped as h."""
        if k in self.spread:
            return (error @ self.get_buffer(f"spread_{k}").to(error.dtype)).view_as(h).to(h.dtype)
        feedback = self.feedback[:, : self.net.reads[k]].to(error.dtype)
        return self.net.view.spread((error @ feedback).mul_(self.scales[k]), h).to(h.dtype)


def _spread(convolution: nn.Conv2d, classes: int, shape: tuple[int, ...]) -> Tensor:
    """Return B_k, (C, n * H * W): for each class a random kernel over all places of a map (n, H, W)."""
    kernel = torch.empty(classes, shape[0], *convolution.kernel_size)
    nn.init.xavier_uniform_(kernel)
    maps = torch.zeros(classes, *shape, requires_grad=True)
    with torch.enable_grad():
        out = F.conv2d(maps, kernel, None, convolution.stride, convolution.padding, convolution.dilation)
        # Row c is what an error of 1 in class c, at every place of the output, sends back.
        (spread,) = torch.autograd.grad(out.diagonal().sum(), maps)
    return spread.flatten(1)
