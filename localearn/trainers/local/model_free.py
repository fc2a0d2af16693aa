import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.nets.physical import Driven
from localearn.tasks import Task
from localearn.trainers.local import labels
from localearn.trainers.local.base import LocalTrainer
from localearn.trainers.phases import Metrics

Loss = Literal["cosine", "squares"]


class ModelFree(LocalTrainer):
    """Train by model-free Forward-Forward: a linear map after each opaque system separates true and wrong labels.

        x+, x- = x with its true label, x with a wrong label            one pass over both, (2N, n)
        h_k = P_k(h_{k-1} / RMS(h_{k-1})) W_k^T + b_k                   (2N, n_k); P_k is queried, never differentiated
        cosine:  g_k = cos(|h_k|, p_k),  p_k ~ N(0, 1) fixed, (n_k,)    (2N,)
                 loss_k = mean over the rows of softplus(-theta (g_k(x+) - g_k(x-)))
        squares: g_k = |h_k|^2
                 loss_k = (mean softplus(t_k - g_k(x+)) + mean softplus(g_k(x-) - t_k)) / 2
        scores = theta sum_k g_k, or sum_k g_k / n_k of squares         for each label in turn, (N, C)

    loss_k trains W_k and b_k and nothing else: d loss_k / d W_k = (d loss_k / d h_k)^T P_k(.), of what P_k answered.
    So P_k may be an instrument, be noisy and drift; see `Physical`, the net whose blocks hold it.

    The label is one-hot, written over the first C entries of a row, or appended to vectors. A block is a function of
    the system's answer alone, so labels and x meet in the system.

    Momeni et al., arXiv 2304.11042 (Science 2023), and, for the cosine, p_k, |h|, biases, theta = 5 and the sum over
    blocks, the authors' code for multimode optics. Differences: the code takes 20 steps on each batch of 10,000 rows
    and its answers, this one step on each of smaller batches; writes the label as rows of pixels on both sides of an
    image; and drives the optics by h itself, not by h / RMS(h).

    Known weakness: a prediction queries each system C times, each measured row costs two answers in training, and where
    a system drifts its W_k, and all behind it, must learn again. The net alone knows no labels in its input, so predict
    with this class.

    Args:
        net: a net whose blocks hold an opaque system and a linear map, with room for a label.
        loss: "cosine", the later contrast of the two passes, or "squares", Forward-Forward's.
        theta: the cosine's steepness, positive.
        threshold: t_k of squares, positive, the same for every block; None: n_k.
        label_scale: the label's height in lengths of its row, positive.

    Raises:
        UserError: when an option is out of its range.

    """

    def __init__(
        self,
        net: Net,
        loss: Loss = "cosine",
        theta: float = 5.0,
        threshold: float | None = None,
        label_scale: float = 1.0,
    ):
        super().__init__(net)
        if loss not in ("cosine", "squares"):
            raise UserError(f"loss must be cosine or squares, not {loss!r}")
        for name, value in {"theta": theta, "label_scale": label_scale, "threshold": threshold}.items():
            if value is not None and value <= 0:
                raise UserError(f"{name} must be positive, not {value}")
        self.loss, self.theta, self.threshold, self.label_scale = loss, theta, threshold, label_scale
        like = next(net.parameters())
        self.targets: list[str] = [f"target_{k + 1}" for k in range(net.depth)] if loss == "cosine" else []
        for name, n in zip(self.targets, net.widths, strict=False):
            self.register_buffer(name, torch.randn(n, device=like.device, dtype=like.dtype))

    @classmethod
    def input_shape_for(cls, data: Data, kind: str) -> tuple[int, ...]:
        """Return the data's shape, with C features more but for images, whose first C pixels are the label's."""
        _refuse_without_classes(data.task, data.name)
        features, *places = data.input_shape
        return (features if places else features + data.classes, *places)

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: its blocks hold an opaque system and a linear map, and it has room for a label."""
        super().supports(net, data)
        name = type(net).__name__
        if not all(isinstance(block.op, Driven) and isinstance(block.post, nn.Identity) for block in net.blocks):
            raise Unsupported(
                f"model_free trains the linear map after an opaque system, and {name}'s blocks are none; use "
                "net=physical (with net.group=1) or, with this net, algo=mono_forward"
            )
        _refuse_without_classes(net.task if data is None else data.task, name)
        size = math.prod(net.input_shape)
        if size <= net.classes:
            raise Unsupported(
                f"model_free writes {net.classes} labels into the input, and {name} takes {size} values; "
                f"build it for {net.classes} more than the data have"
            )

    def check_task(self, task: Task) -> None:
        """Check the task: it has labels to write into the input."""
        super().check_task(task)
        _refuse_without_classes(task, type(self.net).__name__)

    def goodness(self, k: int, h: Tensor) -> Tensor:
        """Return g_{k+1}, (N,), in float32 at least.

        Args:
            k: the block, 0..L-1.
            h: its output, (N, n_k).

        """
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        if self.loss == "squares":
            return h.square().sum(1)
        return F.cosine_similarity(h.abs(), self.get_buffer(self.targets[k]).to(h.dtype).unsqueeze(0), dim=1)

    def block_loss(self, k: int, h: Tensor, batch: Batch) -> Tensor:
        """Return loss_{k+1} from block k's output for the rows with true and then with wrong labels, (2N, n_k)."""
        true, wrong = self.goodness(k, h).chunk(2)
        if self.loss == "cosine":
            return F.softplus(-self.theta * (true - wrong)).mean()
        t = self.net.widths[k] if self.threshold is None else self.threshold
        return (F.softplus(t - true).mean() + F.softplus(wrong - t).mean()) / 2

    def block_parameters(self, k: int) -> list[nn.Parameter]:
        """Return W_k and b_k; the net's readout is not used."""
        driven = self.net.block(k).op
        assert isinstance(driven, Driven)
        return list(driven.linear.parameters())

    def first_input(self, batch: Batch) -> tuple[Tensor, Metrics]:
        """Return h_0 with true and then with wrong labels, (2N, n)."""
        h, y = self.net.stem(batch.x), batch.target
        wrong = labels.uniform_wrong_labels(y, self.net.classes)
        return torch.cat([self._labelled(h, y), self._labelled(h, wrong)]), {}

    def predict(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return each label's scores, (N, C): a pass for each of them."""
        return self.block_scores(self.net.stem(x), *context, start=0, stop=self.net.depth)

    def block_scores(self, h: Tensor, *context: Tensor, start: int, stop: int) -> Tensor:
        """Return each label's scores by the first `stop` blocks, (N, C), from h_0 without a label."""
        if start:
            raise ValueError("a label enters at h_0, so scores start there")
        scores = []
        for label in range(self.net.classes):
            shown = torch.full((len(h),), label, device=h.device)
            total = h.new_zeros(len(h))
            for k, h_k in enumerate(self._outputs(self._labelled(h, shown), stop)):
                weight = self.theta if self.loss == "cosine" else 1 / self.net.widths[k]
                total = total + weight * self.goodness(k, h_k)
            scores.append(total)
        return torch.stack(scores, dim=1)

    def hidden_states(self, x: Tensor, *context: Tensor) -> Iterator[Tensor]:
        """Yield h_1, ..., h_L of x with the label of the largest score."""
        h = self.net.stem(x)
        best = self.block_scores(h, start=0, stop=self.net.depth).argmax(1)
        return self._outputs(self._labelled(h, best), self.net.depth)

    def _labelled(self, h: Tensor, y: Tensor) -> Tensor:
        """Return h_0 of rows h, (N, ...), with labels y, (N,), of height label_scale |h|."""
        height = self.label_scale * torch.linalg.vector_norm(h.flatten(1), dim=1, keepdim=True)
        return labels.embed(h, labels.one_hot(y, self.net.classes) * height, (math.prod(self.net.input_shape),))

    def _outputs(self, h: Tensor, stop: int) -> Iterator[Tensor]:
        for k in range(stop):
            h = self.net.block(k)(h.detach())
            yield h


def _refuse_without_classes(task: Task, name: str) -> None:
    if not task.exclusive or task.per_position:
        raise Unsupported(
            f"model_free contrasts a row's label with wrong ones, and {name} is for {type(task).__name__}, which has "
            "none; use algo=mono_forward, or another rule"
        )
