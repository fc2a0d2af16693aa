"""The family of rules whose error goes back block by block along other paths than the transposed weights."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from localearn.data import Batch, Data
from localearn.errors import Unsupported
from localearn.moved import former_names
from localearn.nets import Net
from localearn.nets.introspection import LinearInterceptor, linear_maps, unmapped_matrices
from localearn.trainers.backward import CutPass, can_be_cut
from localearn.trainers.base import Trainer
from localearn.trainers.feedback.paths import Path, apply_along_path
from localearn.trainers.phases import Metrics, Parts


class BackwardPathTrainer(Trainer):
    """Run backprop's one backward pass, but with a path of its own for the error around each linear map.

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
                raise Unsupported(f"{cls.__name__} needs {name_of(m.name)}'s padding in pixels, not as a string")

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

    def _along_paths(self) -> LinearInterceptor:
        """Return the context in which a map with a path sends its error back by it."""
        paths = {id(self.net.get_parameter(name)): path for name, path in self.named_paths()}

        def by_path(func: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
            path = paths.get(id(weight))
            if path is None:
                return func(x, weight, bias, *rest)
            return apply_along_path(path, func, x, weight, bias, *rest)

        return LinearInterceptor(by_path)

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


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
