"""Forward gradients, with the local guess that lowers their variance."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap
from torch.utils._pytree import tree_leaves, tree_map

from localearn.data import Batch
from localearn.errors import UserError
from localearn.extras import load_forward_mode
from localearn.nets import Net
from localearn.trainers.base import accumulate_grad
from localearn.trainers.estimators.base import EstimatorTrainer
from localearn.trainers.phases import Metrics, completed

Space = Literal["weight", "activity"]
Noise = Literal["gaussian", "rademacher"]
Guess = Literal["noise", "local"]

LINEAR = (nn.Linear, nn.Conv2d)  # the maps whose derivative along a tangent is the map itself, but for the bias
NOISES: Mapping[Noise, Callable[..., Tensor]] = {
    "gaussian": torch.randn,
    "rademacher": lambda *shape, **kw: torch.empty(*shape, **kw).bernoulli_(0.5).mul_(2).sub_(1),
}


class ForwardGradient(EstimatorTrainer):
    """Estimate the gradient by forward mode: a random direction, times the loss's derivative along it, without bias.

        weight space:    g = mean over K of (J v) v       v ~ noise, one for every parameter; J v by forward mode
        activity space:  g_z = mean over K of (J u) u     u ~ noise, one for every z_k and row; then d theta_k by
                                                          the op's own product, (d z_k / d theta_k)^T g_z

    Of a sequence a row is all of it: what attention or recurrence may carry from one position to another counts.
    E[v v^T] = 1 makes both unbiased; the variance grows with the number of perturbed values, so activity space, with
    n_k values a row and a directional derivative for each row, has far less of it than weight space. Where rows
    depend on each other (a graph, batch normalisation) J u is that of the batch's loss. In activity space the readout,
    which knows its error, follows its true gradient, and a post with parameters of its own is perturbed at its output
    too.

    By a local guess, with a tangent for each block and no noise,

        g = (J v) v / |v|^2        v = d a_k / d z_k, for each row, or d a_k / d theta_k, for each block

    The last block's guess is its gradient, the others' estimate is biased, and never uphill.

    Baydin et al., arXiv 2202.08587, definition 1; activity space: Ren et al., arXiv 2210.03310, section 4; K tangents:
    Fournier et al., arXiv 2306.06968.

    Known weakness: the variance, so it learns slowly; where rows are coupled, activity space loses its advantage, for
    all rows' values then perturb one derivative.

    Args:
        net: a net whose layers forward mode can differentiate.
        space: what is perturbed, "weight" or "activity".
        tangents: K, 1 or more, vectorised.
        noise: "gaussian" or "rademacher" (lower variance).
        guess: "noise", or "local", which takes the direction from a loss of the block's own (`LocalGuess`) and follows
            the gradient's projection on it, whatever `noise` is. None is "local", for by noise most cells of
            results/defaults ended below a linear classifier, and "noise" in weight space, which then keeps no
            activities, with several tangents and with Rademacher's noise.

    Raises:
        UserError: when `tangents` is below 1, or a local guess is given several tangents.

    """

    def __init__(
        self,
        net: Net,
        space: Space = "activity",
        tangents: int = 1,
        noise: Noise = "gaussian",
        guess: Guess | None = None,
    ):
        super().__init__(net)
        if tangents < 1:
            raise UserError(f"tangents must be 1 or more, not {tangents}")
        if guess is None:
            guess = "local" if (space, tangents, noise) == ("activity", 1, "gaussian") else "noise"
        if guess == "local" and tangents > 1:
            which = f"use tangents=1, not {tangents}, or guess=noise"
            raise UserError(f"a local guess is one direction for each block; {which}")
        self.space, self.tangents, self.noise = space, tangents, NOISES[noise]
        self.guess = LocalGuess(net) if guess == "local" else None
        load_forward_mode()

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` with the estimate; return the loss."""
        return completed(self.by_block(batch))

    def by_block(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` as `gradients` does; in activity space it pauses after each perturbed layer."""
        sites: Iterable[tuple[Tensor, Tensor]] = ()
        with self.full_precision_normalisation(), self.transformable_attention():
            if self.space == "weight":
                loss = self._in_weights(batch)
            else:
                loss, sites = self._in_activities(batch)
        yield {"loss": loss}
        for value, delta in sites:
            accumulate_grad(value, delta)
            yield {}

    def _in_weights(self, batch: Batch) -> Tensor:
        parameters = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        at = {name: p.detach() for name, p in parameters.items()}
        guess = self.guess
        tangents = guess.directions(self.net, batch) if guess else {name: self._draw(p) for name, p in at.items()}
        loss, along, buffers = self._derivative(lambda p: self.loss_at(p, batch), at, tangents)
        self.write_buffers(self.net, buffers)
        if guess:
            along = along * len(along)  # each tangent is of another block: their sum counts, not their mean
        for name, p in parameters.items():
            p.grad = _weighted_mean(along, tangents[name])
        return loss

    def _in_activities(self, batch: Batch) -> tuple[Tensor, Iterable[tuple[Tensor, Tensor]]]:
        """Fill the readout's `.grad`; return the loss, and each perturbed value with what its parameters follow."""
        h, tangent = self.net.stem(batch.x), None
        sites: list[tuple[Tensor, Tensor]] = []  # a perturbed value, and its noise, (K, *value.shape)
        for k in range(self.net.depth):
            block = self.net.block(k)
            for module, context in ((block.op, batch.context), (block.post, ())):
                h, tangent = self._push(module, h.detach(), tangent, context)
                if any(p.requires_grad for p in module.parameters()):
                    after = (block.post,) if module is block.op else ()
                    u = self.guess.direction(self.net, k, h, after, batch)[None] if self.guess else self._draw(h)
                    sites.append((h, u))
                    tangent = u if tangent is None else torch.cat([tangent, u]) if self.guess else tangent + u
        if tangent is not None:
            tangent = self.net.view.along(tangent, h.detach())
        context = batch.context if self.net.readout_takes_context else ()
        logits, tangent = self._push(self.net.readout, self.net.view(h.detach()), tangent, context)
        loss, error = self.task.error(logits, batch)
        accumulate_grad(logits, error)
        if tangent is None:  # every block is frozen
            return loss, ()
        along = (error * tangent).flatten(2).sum(-1)  # (K, N): the derivative of each row's share of the loss
        if self.net.couples_rows():
            along = along.sum(-1, keepdim=True)

        def delta(j: int, u: Tensor) -> Tensor:
            return _weighted_mean(along[j : j + 1] if self.guess else along, u)

        return loss, ((value, delta(j, u).to(value.dtype)) for j, (value, u) in enumerate(sites))

    def _push(
        self, module: nn.Module, h: Tensor, tangent: Tensor | None, context: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Tensor | None]:
        """Return module(h), with the graph of its own parameters alone, and its (K, ...) derivative."""
        if tangent is None:
            return module(h, *context), None
        if type(module) in LINEAR and not module._forward_hooks:
            # Forward mode would multiply with the weight's derivative too, which is zero here.
            return module(h), _linear_part(module, tangent)

        def apply(h: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
            return functional_call(module, buffers, (h, *context)), buffers

        out, out_tangent, buffers = self._derivative(apply, h, tangent)
        self.write_buffers(module, buffers)
        return out, out_tangent.detach()

    def _derivative(self, fn: Callable, at: Any, tangents: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return fn(at), its (K, ...) derivatives along the K tangents, and what fn returns next to its value."""

        def along(tangent: Any) -> Any:
            return jvp(fn, (at,), (tangent,), has_aux=True)

        if len(tree_leaves(tangents)[0]) > 1:
            out_dims: Any = (None, 0, None)
            return vmap(along, out_dims=out_dims, randomness="same")(tangents)
        value, derivative, aux = along(tree_map(lambda t: t[0], tangents))  # one alone needs no vectorisation
        return value, derivative.unsqueeze(0), aux

    def _draw(self, like: Tensor) -> Tensor:
        return self.noise(self.tangents, *like.shape, device=like.device, dtype=like.dtype)


@torch.no_grad()
def _linear_part(module: nn.Module, tangents: Tensor) -> Tensor:
    """Return the derivatives of a linear map along tangents of its input, (K, N, ...): the map without its bias."""
    along = tangents.flatten(0, 1)
    if isinstance(module, nn.Linear):
        out = F.linear(along, module.weight)
    else:
        assert isinstance(module, nn.Conv2d)
        out = module._conv_forward(along, module.weight, None)
    return out.unflatten(0, tangents.shape[:2])


def _weighted_mean(along: Tensor, noise: Tensor) -> Tensor:
    """Return the mean over K of along times noise: along is (K,) or (K, N), noise (K, N, ...); in place where K = 1."""
    weights = along.reshape(*along.shape, *(1,) * (noise.dim() - along.dim()))
    return noise[0].mul_(weights[0]) if len(noise) == 1 else (noise * weights).mean(0)


class LocalGuess(nn.Module):
    """Guess where the loss falls: the gradient of a local auxiliary loss of each block, as a unit direction.

        a_k = L(h_k A_k^T + c_k, y), A_k: (C, n_k), k < L;    a_L is the net's own loss L, its head being the readout
        v_k = d a_k / d z_k (each row), or d a_k / d theta_k (all of a block)

    The heads A_k, c_k learn by the gradient of a_k.

    Fournier et al., arXiv 2306.06968; of its auxiliary nets this is the linear one.

    Args:
        net: the net whose blocks have such heads.

    """

    def __init__(self, net: Net):
        super().__init__()
        like = next(net.parameters())
        self.heads = nn.ModuleList(
            nn.Linear(n, net.classes, device=like.device, dtype=like.dtype) for n in net.reads[:-1]
        )

    def direction(self, net: Net, k: int, value: Tensor, after: Sequence[nn.Module], batch: Batch) -> Tensor:
        """Return v at a value of block k, shaped as it; fill the head's `.grad`.

        Each row's has length 1, or the batch's where rows are coupled; zero where the auxiliary loss is flat.

        Args:
            net: the net.
            k: the block, 0..L-1.
            value: a value inside the block, (N, ...).
            after: the layers that turn the value into h_k.
            batch: the step's batch.

        """
        value = value.detach().requires_grad_()
        h = value
        for layer in after:
            h = functional_call(layer, _copies(layer), (h,))
        (v,) = self._gradients(net, k, h, [value], batch)
        over = tuple(range(0 if net.couples_rows() else 1, v.dim()))
        return v / _positive(torch.linalg.vector_norm(v, dim=over, keepdim=True))

    def directions(self, net: Net, batch: Batch) -> dict[str, Tensor]:
        """Return v in all trained parameters, by name, (L, *shape): row k has block k's, of length 1, and zeros.

        The last block's has the readout's in it. The heads' `.grad` is filled.

        Args:
            net: the net.
            batch: the step's batch.

        """
        trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
        v = {name: p.new_zeros(net.depth, *p.shape) for name, p in trained.items()}
        h = net.stem(batch.x)
        for k in range(net.depth):
            own = (f"blocks.{k}.", "readout.") if k == net.depth - 1 else (f"blocks.{k}.",)
            names = [name for name in trained if name.startswith(own)]
            block = net.block(k)
            h = functional_call(block, _copies(block), (h.detach(), *batch.context))
            found = self._gradients(net, k, h, [trained[name] for name in names], batch)
            if names:
                length = _positive(torch.nn.utils.get_total_norm(found))
                for name, g in zip(names, found, strict=True):
                    v[name][k] = g / length
        return v

    def _gradients(self, net: Net, k: int, h: Tensor, of: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """Return the gradients of a_{k+1} with regard to `of`, and fill those of the block's own head."""
        last = k == net.depth - 1
        own = [] if last else list(self.heads[k].parameters())
        logits = net.logits(h, *batch.context) if last else self.heads[k](net.view(h))
        loss = net.task.loss(logits, batch)
        found = torch.autograd.grad(loss, [*of, *own])
        for p, gradient in zip(own, found[len(of) :], strict=True):
            p.grad = gradient
        return [g.detach() for g in found[: len(of)]]


def _copies(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the module's buffers, so that a guess moves no running statistic."""
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def _positive(length: Tensor) -> Tensor:
    return length.clamp_min(torch.finfo(length.dtype).tiny)
