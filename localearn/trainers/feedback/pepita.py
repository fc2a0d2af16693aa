import math
from typing import Literal

import torch
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Block, Net
from localearn.trainers.base import Trainer, follow, linear_readout
from localearn.trainers.feedback.passes import DROPOUTS, Passes, layers, no_autocast, still_buffers
from localearn.trainers.feedback.weight_mirror import WeightMirror

Form = Literal["difference", "time_local"]


class Pepita(Trainer):
    """PEPITA: the error, added to the input, makes a second pass whose activities differ; the difference teaches.

        first pass     h_k, p = softmax(o); e = p - Y, per row, (N, C); of values e = d loss / d o, and p = e + Y
        second pass    from x' = x + e F^T, with the same dropout masks: h'_k, p', e' = p' - Y
        dW_k = (h_k - h'_k)^T h'_{k-1},   h'_0 = x';        dW_o = e'^T h'_L

    averaged over the batch; the update goes against them. No derivative of an activation is taken. F is (D, C), fixed,
    uniform within scale sqrt(6 / D).
    form "time_local": dW_k = h_k^T h_{k-1} - h'_k^T h'_{k-1}, dW_o = p^T h_L - Y^T h'_L: no product needs the other
    pass's activities. 2302.05440's PEPITA-TL steps between the passes; here one step takes both (its PEPITA-Hebbian).
    mirror: F learns the weights from noise, in nets of Linear layers alone, see `WeightMirror`.
    As the authors' code has it: in a convolution h_k is taken before pooling and the product is also averaged over
    positions; where the readout is the only Linear layer, its error is the first pass's. Ours: biases and
    normalisations follow the same differences, running statistics are the first pass's, a graph's products run along
    its edges, and autocast, whose rounding is as large as the differences, is left aside.
    Dellaferrera, Kreiman, arXiv 2201.11665, algorithm 1; Srinivasan et al., arXiv 2302.05440.
    Known weakness: depth; convolutions, which a mean over positions hardly moves, LeNet-5's not at all; rates just
    above those by which it learns diverge.
    """

    needs_derivatives = False
    autocasts = False
    feedback: Tensor

    def __init__(self, net: Net, scale: float = 0.05, form: Form = "difference", mirror: bool = False):
        super().__init__(net)
        if scale <= 0:
            raise UserError(f"scale must be positive, not {scale}: the blocks learn through F alone")
        self.form = form
        size, like = math.prod(net.input_shape), next(net.parameters())
        self.mirror = WeightMirror(net, scale * math.sqrt(2 / size)) if mirror else None
        if self.mirror is None:
            feedback = torch.empty(size, net.classes, device=like.device, dtype=like.dtype)
            self.register_buffer("feedback", feedback.uniform_(-1, 1).mul_(scale * math.sqrt(6 / size)))

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Serve plain blocks, whose op is a linear map, and a Linear readout."""
        super().supports(net, data)
        for k, block in enumerate(net.blocks):
            wrong = block if type(block) is not Block else block.op
            if not isinstance(wrong, _linear_maps(net)):
                _refuse(net, f"block {k + 1} is a {type(wrong).__name__}, not one linear map and what follows it")
        if not isinstance(net.readout, nn.Linear):
            _refuse(net, f"the readout is a {type(net.readout).__name__}, not a Linear{linear_readout(net)}")
        reached = {layer for part in (net.stem, *net.blocks) for layer in layers(part)}
        if any(isinstance(layer, DROPOUTS) and layer not in reached for layer in net.modules()):
            _refuse(net, "a layer has dropout inside, whose mask a second pass cannot repeat")

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Fill `.grad` with the products; return the first pass's loss."""
        with no_autocast(batch.x.device):
            return {"loss": self._two_passes(batch)}

    def _two_passes(self, batch: Batch) -> Tensor:
        passes, rows, local = Passes(self.net), len(batch.target), self.form == "time_local"
        with torch.set_grad_enabled(local):
            first, logits = passes.run(batch.x, *batch.context)
        loss, error = self.task.error(logits, batch)  # e / N
        target = self._target(error, batch)
        if local:
            _follow([(site.output, site.activity) for site in first], rows)
            follow(logits, error + target)
        feedback = self.feedback if self.mirror is None else self.mirror()
        with still_buffers(self.net):
            second, logits = passes.run(batch.x + (rows * error @ feedback.T).view_as(batch.x), *batch.context)
            if local:
                _follow([(site.output, -site.activity) for site in second], rows)
                follow(logits, -target)
            else:
                pairs = zip(first, second, strict=True)
                _follow([(later.output, site.activity - later.activity) for site, later in pairs], rows)
                follow(logits, self.task.error(logits, batch)[1] if self._has_linear_block() else error)
        if self.mirror is not None:
            self.mirror.gradients(self.net, rows)
        return loss

    def _target(self, error: Tensor, batch: Batch) -> Tensor:
        """Return Y / N, (N, C), zero in rows without a target."""
        return batch.scatter(self.task.encode(batch.target).to(error.dtype) * (1 / len(batch.target)))

    def _has_linear_block(self) -> bool:
        return any(isinstance(self.net.block(k).op, nn.Linear) for k in range(self.net.depth))


def _follow(products: list[tuple[Tensor, Tensor]], rows: int) -> None:
    """Add each activity's product with the layer's input to `.grad`: the mean over rows and a map's positions."""
    for output, activity in products:
        follow(output, activity / (rows * math.prod(output.shape[2:])))


def _linear_maps(net: Net) -> tuple[type, ...]:
    if not net.graph:
        return nn.Linear, nn.modules.conv._ConvNd
    from torch_geometric.nn import GCNConv, SAGEConv

    return nn.Linear, GCNConv, SAGEConv


def _refuse(net: Net, why: str) -> None:
    raise Unsupported(f"pepita cannot train this {type(net).__name__}: {why}; use net=mlp, cnn, gcn or sage")
