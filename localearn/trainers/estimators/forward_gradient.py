from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from localearn.data import Batch
from localearn.errors import UserError
from localearn.nets import Net
from localearn.nets.layers import choose
from localearn.trainers.base import cross_entropy
from localearn.trainers.estimators.base import EstimatorTrainer

Space = Literal["weight", "activity"]

NOISE: Mapping[str, Callable[..., Tensor]] = {
    "gaussian": torch.randn,
    "rademacher": lambda *shape, **kw: torch.randn(*shape, **kw).sign_(),
}


class ForwardGradient(EstimatorTrainer):
    """Forward gradient: a random direction, times the loss's derivative along it, is an unbiased gradient estimate.

        weight space:    g = mean over K of (J v) v       v ~ noise, one for every parameter; J v from a forward-mode pass
        activity space:  g_z = mean over K of (J u) u     u ~ noise, one for every z_k and row; then d theta_k by the
                                                          op's own product, (d z_k / d theta_k)^T g_z

    E[v v^T] = 1 makes both unbiased; the variance grows with the number of perturbed values, so activity space, with
    n_k values a row and a directional derivative for each row, has far less of it than weight space. Where rows depend on
    each other (a graph, batch normalisation) J u is that of the batch's loss. In activity space the readout, which
    knows its error, follows its true gradient, and a post with parameters of its own is perturbed at its output too.

    space: "weight" or "activity". tangents: K, vectorised. noise: "gaussian" or "rademacher" (lower variance).
    Baydin et al., arXiv 2202.08587, definition 1; activity space: Ren et al., arXiv 2210.03310, section 4; K tangents:
    Fournier et al., arXiv 2306.06968. Known weakness: the variance; expect it to learn slowly.
    """

    def __init__(self, net: Net, space: Space = "activity", tangents: int = 1, noise: str = "gaussian"):
        super().__init__(net)
        if space not in get_args(Space):
            raise UserError(f"space is {' or '.join(get_args(Space))}, not {space!r}")
        if tangents < 1:
            raise UserError(f"tangents must be 1 or more, not {tangents}")
        self.space, self.tangents, self.noise = space, tangents, choose("noise", noise, NOISE)

    def gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Fill `.grad` with the estimate; return the loss."""
        with self.float32_normalisation():
            return {"loss": self._in_weights(batch) if self.space == "weight" else self._in_activities(batch)}

    def _in_weights(self, batch: Batch) -> Tensor:
        parameters = {name: p.detach() for name, p in self.net.named_parameters() if p.requires_grad}
        tangents = {name: self._draw(p) for name, p in parameters.items()}

        def derivative(tangent: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            return jvp(lambda p: self.loss_at(p, batch), (parameters,), (tangent,), has_aux=True)

        loss, along, buffers = self._over_tangents(derivative, tangents, out_dims=(None, 0, None))
        self.keep_buffers(self.net, buffers)
        for name, p in self.net.named_parameters():
            if p.requires_grad:
                p.grad = _weighted_mean(along, tangents[name])
        return loss

    def _in_activities(self, batch: Batch) -> Tensor:
        h, tangent = self.net.stem(batch.x), None
        sites: list[tuple[Tensor, Tensor]] = []  # a perturbed value and its noise, (K, *value.shape)
        for block in self.net.blocks:
            for module, context in ((block.op, batch.context), (block.post, ())):
                h, tangent = self._push(module, h.detach(), tangent, context)
                if any(p.requires_grad for p in module.parameters()):
                    u = self._draw(h)
                    tangent = u if tangent is None else tangent + u
                    sites.append((h, u))
        assert tangent is not None
        h, tangent = h.detach().flatten(1), tangent.flatten(2)
        logits, logits_tangent = self._push(self.net.readout, h, tangent, ())
        assert logits_tangent is not None
        logits.retain_grad()
        loss = cross_entropy(logits, batch)
        loss.backward()
        assert logits.grad is not None
        along = (logits.grad * logits_tangent).sum(-1)  # (K, N): the derivative of each row's share of the loss
        if self.net.couples_rows():
            along = along.sum(-1, keepdim=True)
        values = [value for value, _ in sites]
        torch.autograd.backward(values, [_weighted_mean(along, u).to(u.dtype) for _, u in sites])
        return loss.detach()

    def _push(
        self, module: nn.Module, h: Tensor, tangent: Tensor | None, context: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """Return module(h), with the graph of its own parameters alone, and its (K, ...) derivative along the tangent."""
        if tangent is None:
            return module(h, *context), None

        def apply(h: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
            return functional_call(module, buffers, (h, *context)), buffers

        def derivative(t: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            return jvp(apply, (h,), (t,), has_aux=True)

        out, out_tangent, buffers = self._over_tangents(derivative, tangent, out_dims=(None, 0, None))
        self.keep_buffers(module, buffers)
        return out, out_tangent.detach()

    def _over_tangents(self, fn: Callable, tangents, out_dims):
        """Apply fn to the K tangents at once; one alone needs no vectorisation."""
        if self.tangents > 1:
            return vmap(fn, out_dims=out_dims, randomness="same")(tangents)
        single = {k: t[0] for k, t in tangents.items()} if isinstance(tangents, dict) else tangents[0]
        value, along, aux = fn(single)
        return value, along.unsqueeze(0), aux

    def _draw(self, like: Tensor) -> Tensor:
        return self.noise(self.tangents, *like.shape, device=like.device, dtype=like.dtype)


def _weighted_mean(along: Tensor, noise: Tensor) -> Tensor:
    """Return the mean over K of along times noise: along is (K,) or (K, N), noise (K, N, ...); in place where K = 1."""
    weights = along.reshape(*along.shape, *(1,) * (noise.dim() - along.dim()))
    return noise[0].mul_(weights[0]) if len(noise) == 1 else (noise * weights).mean(0)
