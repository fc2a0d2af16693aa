"""Feedback rules: the error goes back block by block along other paths than the transposed weights, or to each at once.

`Path` and `around` replace the backward pass of a linear map, `BackwardPathTrainer` is the family of rules with such
paths, and `FeedbackTrainer` that of rules with a teaching signal for each block.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.nets.introspection import Replaced, linear_maps, unmapped_matrices
from localearn.trainers.backward import CutPass, can_be_cut
from localearn.trainers.base import Trainer, follow
from localearn.trainers.phases import Metrics, Parts, completed


class Path(nn.Module, ABC):
    """A replacement for W in the backward pass: W is (n_out, n_in), or (n_out, n_in, height, width) in a convolution.

    It owns its feedback matrices, as buffers or parameters, of W's dtype and on W's device.
    """

    @abstractmethod
    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return R and B: the error passes through B, (n_out, m), then through R, shaped as W but with m for n_out.

        Without B, None, it passes through R alone, and m is n_out.

        Args:
            weight: W, detached.

        """

    @torch.no_grad()
    def matrix(self, weight: Tensor) -> Tensor:
        """Return B R, shaped as W: what W is in the forward pass.

        Args:
            weight: W.

        """
        back, mix = self(weight)
        return back if mix is None else mixed(mix, back)


def mixed(mix: Tensor, back: Tensor) -> Tensor:
    """Return B R, (n_out, n_in, ...), group by group of R's m rows.

    Args:
        mix: B, (n_out, m / groups).
        back: R, (m, n_in, ...).

    """
    groups = back.shape[0] // mix.shape[1]
    by_group = mix.unflatten(0, (groups, -1)) @ back.flatten(1).unflatten(0, (groups, -1))
    return by_group.flatten(0, 1).unflatten(1, back.shape[1:])


def scale_of(weight: Tensor) -> Tensor:
    """Return the root mean square of W's entries, a scalar: of a net as it was initialised, the draw's deviation.

    Args:
        weight: W.

    Raises:
        UserError: when W is all zero.

    """
    if not weight.is_meta and not weight.any():
        raise UserError("a weight is all zero, so there is no scale to draw its feedback at; initialise it first")
    return weight.detach().square().mean().sqrt()


def drawn_like(weight: Tensor) -> Tensor:
    """Return a tensor shaped as W, uniform about zero with W's own deviation; torch's layers are drawn uniform too.

    Args:
        weight: W.

    Raises:
        UserError: when W is all zero.

    """
    return torch.empty_like(weight).uniform_(-math.sqrt(3), math.sqrt(3)) * scale_of(weight)


def around(
    path: Path, func: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any
) -> Tensor:
    """Return func(x, W, b, *geometry), whose error goes back by the path.

    Args:
        path: what stands for W in the backward pass.
        func: F.linear or F.conv2d.
        x: the map's input, (..., n_in) or (N, n_in, H, W).
        weight: W.
        bias: b, (n_out,), or None.
        geometry: stride, padding, dilation and groups of a convolution; empty for a Linear.

    """
    back, mix = path(weight.detach())
    rows = x.numel() // x.shape[1 if geometry else -1]  # of a convolution: the pixels of the batch
    if mix is not None and rows > len(mix):
        # (delta B) R = delta (B R), and this order multiplies fewer numbers.
        back, mix = mixed(mix, back), None
    return SentBack.apply(func, geometry, x, weight, bias, back, mix)  # pyright: ignore[reportReturnType]


class SentBack(torch.autograd.Function):
    """y = map(x, W, b), whose error goes back by a path: delta_x = (delta_y B) R, and B may be left out.

    W's and b's gradients are the map's own. R's, where it learns, is that of a map from x with the error delta_y B: the
    Hebbian product (delta_y B)^T x. Nothing of W is saved for the backward pass.
    """

    @staticmethod
    def forward(  # noqa: D102 - torch.autograd.Function's
        ctx: Any,
        func: Callable[..., Tensor],
        geometry: tuple[Any, ...],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        back: Tensor,
        mix: Tensor | None,
    ) -> Tensor:
        y = func(x, weight, bias, *geometry)
        # Under autocast the map has computed in y's precision; its gradients are taken in the same.
        ctx.save_for_backward(x.to(y.dtype), back, mix)
        ctx.geometry, ctx.shape = geometry, weight.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102 - torch.autograd.Function's
        x, back, mix = ctx.saved_tensors
        _, _, x_needs, weight_needs, bias_needs, back_needs, _ = ctx.needs_input_grad
        pull = _pull_conv2d if ctx.geometry else _pull_linear
        back = back.to(delta.dtype)
        if mix is None:
            grad_x, product = pull(delta, x, back, ctx.geometry, x_needs, weight_needs or back_needs)
            grad_weight, grad_back = product if weight_needs else None, product if back_needs else None
        else:
            relayed = _relay(delta, mix.to(delta.dtype), ctx.geometry)
            grad_x, grad_back = pull(relayed, x, back, ctx.geometry, x_needs, back_needs)
            # W's gradient does not depend on W: one number stands for all of its entries.
            blank = delta.new_zeros(()).expand(ctx.shape)
            grad_weight = pull(delta, x, blank, ctx.geometry, False, weight_needs)[1]
        grad_bias = _channel_sums(delta, bool(ctx.geometry)) if bias_needs else None
        return None, None, grad_x, grad_weight, grad_bias, grad_back, None


def _relay(delta: Tensor, mix: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    """Return delta B: (..., m) of a Linear's (..., n_out), (N, m, H, W) of a convolution's (N, n_out, H, W)."""
    if not geometry:
        return delta @ mix
    return F.conv_transpose2d(delta, mix[..., None, None], groups=geometry[3])


def _pull_linear(
    delta: Tensor, x: Tensor, weight: Tensor, _: tuple[Any, ...], x_needs: bool, weight_needs: bool
) -> tuple[Tensor | None, Tensor | None]:
    grad_x = delta @ weight if x_needs else None
    grad_weight = delta.flatten(0, -2).t() @ x.flatten(0, -2) if weight_needs else None
    return grad_x, grad_weight


def _pull_conv2d(
    delta: Tensor, x: Tensor, weight: Tensor, geometry: tuple[Any, ...], x_needs: bool, weight_needs: bool
) -> tuple[Tensor | None, Tensor | None]:
    stride, padding, dilation = (n if isinstance(n, (tuple, list)) else (n, n) for n in geometry[:3])
    # One call gives both, as in backprop: it reads the weight for the input's gradient alone.
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        delta, x, weight, None, stride, padding, dilation, False, (0, 0), geometry[3], (x_needs, weight_needs, False)
    )
    return grad_x, grad_weight


def _channel_sums(delta: Tensor, convolution: bool) -> Tensor:
    return delta.sum((0, 2, 3)) if convolution else delta.flatten(0, -2).sum(0)


class BackwardPathTrainer(Trainer):
    """Backprop's one backward pass, but each linear map has a path of its own for the error that comes back through it.

        z = W h + b                    delta_h = delta_z P        P, shaped as W, is the path's; backprop has P = W
        dW = delta_z^T h, db = sum of delta_z                     exact, given delta_z

    A path goes around every Linear and Conv2d whose input depends on parameters, within a block as between two: all of
    them but the first one. Everything else (activations, pooling, normalisation with its scale, a graph's edges) has
    its exact derivative. So an error crosses blocks here, and `crosses_blocks` says so; but it is not the gradient, and
    no W of a later layer is read, or saved, for its backward pass. A rule defines what a path is: `path`.

    Args:
        net: a net whose matrices are all weights of Linear or Conv2d layers, however they are connected.

    Attributes:
        paths: the paths, by the names of their weights.

    """

    crosses_blocks = True

    def __init__(self, net: Net):
        super().__init__(net)
        inner = [m for m in linear_maps(net) if m.inner]
        # A module's name has no dots in it.
        self.paths = nn.ModuleDict(
            {m.name.replace(".", "/"): self.path(net.get_parameter(m.name).detach(), m.groups) for m in inner}
        )

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: all of its matrices are weights of Linear or Conv2d layers, however they are connected.

        Attention has no matrix of its own: its exact derivative is taken. Embeddings are looked up and added.
        """
        super().supports(net, data)
        maps = linear_maps(net)
        for name in unmapped_matrices(net, maps):
            instead = "cnn, resnet20, transformer, gcn or sage; or algo=direct_feedback_alignment for this net"
            raise Unsupported(
                f"{cls.__name__} sends the error around Linear and Conv2d layers, and {type(net).__name__}'s {name} is "
                f"a matrix of another kind; use such layers alone, say net=mlp, {instead}"
            )
        for m in maps:
            if m.inner and not m.numeric:
                raise Unsupported(f"{cls.__name__} needs {name_of(m.name)}'s padding in pixels, not as a word")

    @abstractmethod
    def path(self, weight: Tensor, groups: int) -> Path:
        """Build the path around a map.

        Args:
            weight: the map's, (n_out, n_in / groups, ...), detached.
            groups: the convolution's groups; 1 for a Linear.

        """

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` by one backward pass along the paths; return the loss."""
        with self._along_paths():
            logits = self.net(batch.x, *batch.context)
        loss = self.task.loss(logits, batch)
        loss.backward()
        return {"loss": loss.detach()}

    def by_block(self, batch: Batch) -> Parts:
        """Fill `.grad` along the paths, pausing at each block in the backward pass."""
        return self._by_block(batch) if can_be_cut(self.net) else self.gradients(batch)

    def _by_block(self, batch: Batch) -> Iterator[Metrics]:
        with self._along_paths():
            cut = CutPass(self.net, batch)
        loss = self.task.loss(cut.logits, batch)
        yield from cut.backward(loss)
        yield {"loss": loss.detach()}

    def _along_paths(self) -> Replaced:
        """Return the context in which a map with a path sends its error back by it."""
        paths = {id(self.net.get_parameter(name)): path for name, path in self.named_paths()}

        def by_path(func: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
            path = paths.get(id(weight))
            if path is None:
                return func(x, weight, bias, *rest)
            return around(path, func, x, weight, bias, *rest)

        return Replaced(by_path)

    def named_paths(self) -> list[tuple[str, Path]]:
        """Return each path with the name of its weight in the net."""
        return [(key.replace("/", "."), path) for key, path in self.paths.items() if isinstance(path, Path)]

    @torch.no_grad()
    def path_angles(self) -> dict[str, Tensor]:
        """Return the angle between P and W, in degrees, of each path, by its layer's name; 0 is backprop."""
        angles = {}
        for name, path in self.named_paths():
            weight = self.net.get_parameter(name)
            cosine = torch.cosine_similarity(path.matrix(weight).flatten(), weight.flatten(), dim=0)
            angles[name_of(name)] = cosine.clamp(-1, 1).acos().rad2deg()
        return angles


def name_of(weight: str) -> str:
    """Return a layer's name from its weight's.

    Args:
        weight: the weight's name in the net.

    """
    return weight.removesuffix(".weight")


class FeedbackTrainer(Trainer):
    """Rules whose readout follows the true gradient, and whose block k follows a teaching signal at its output h_k.

        e = d loss / d o                                  (N, C); (softmax(o) - Y) / N of classes; zero without a target
                                                           or where padded; (N, T, C) of outputs of positions
        delta_k = signal(k, e, ...)                        in place of d loss / d h_k
        d theta_k = (d h_k / d theta_k)^T delta_k          exact within the block, its input being a constant

    A rule defines how the error reaches a block: `signal`.

    Args:
        net: any net.

    """

    @abstractmethod
    def signal(self, k: int, error: Tensor, h: Tensor) -> Tensor:
        """Return the teaching signal at block k's output, shaped as h.

        Args:
            k: the block, 0..L-1.
            error: e, (N, C), or (N, T, C) of positions.
            h: the block's output, (N, *shapes[k]), detached.

        """

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` from the teaching signals, last block first; return the loss."""
        return completed(self.by_block(batch))

    def by_block(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` as `gradients` does, pausing after the readout and after each block."""
        outputs = []
        h = self.net.stem(batch.x)
        for k in range(self.net.depth):
            h = self.net.block(k)(h.detach(), *batch.context)
            outputs.append(h)
        logits = self.net.logits(h.detach(), *batch.context)
        loss, error = self.task.error(logits, batch)
        follow(logits, error)
        yield {"loss": loss}
        while outputs:
            h = outputs.pop()  # popped, so that a block's graph is freed once it has been used
            k = len(outputs)
            follow(h, self.signal(k, error, h.detach()))
            yield {}
