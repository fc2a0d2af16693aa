"""The likelihood-ratio estimator, with the streams of noise and the sites that they perturb."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from localearn.data import Batch, Data
from localearn.errors import Unsupported, UserError
from localearn.nets import Net
from localearn.nets.layers import preserve_modes
from localearn.nets.views import Head
from localearn.trainers.base import accumulate_grad
from localearn.trainers.estimators.base import EstimatorTrainer
from localearn.trainers.estimators.noise import NOISES, Kind
from localearn.trainers.phases import Metrics, completed

Baseline = Literal["none", "mean", "clean"]


@dataclass
class Streams:
    """Hold the values that run through the net: rows without noise, (N, ...), and their noisy copies, (S, N, ...)."""

    clean: Tensor | None
    noisy: Tensor | None = None


class Site(NamedTuple):
    """Hold a perturbed value, with the graph of what gave it.

    Attributes:
        value: (N, ...) or (K, N, ...).
        noise: (K, N, ...).
        sigma: the noise's deviation.
        hops: the convolutions still to come, each of which carries the noise along one more edge of a graph.

    """

    value: Tensor
    noise: Tensor
    sigma: float
    hops: int


class LikelihoodRatio(EstimatorTrainer):
    """Estimate the gradient by likelihood ratio (ULR): noise on the activities, weighted by the loss that it led to.

        z_k + eps_k, eps_k ~ N(0, sigma_k^2), in each block, row and copy;   L_i: the loss of row i
        d theta_k = E[(L_i - b_i) (d z_k / d theta_k)^T eps_k / sigma_k^2]      of a Linear: E[L (eps / sigma^2)^T h]

    averaged over rows and copies; of a sequence L_i is what all its positions have in the mean loss. It is the gradient
    of the loss expected under the noise, which is smooth whatever the activation: only a block's op is differentiated,
    so nets of `sign` units learn. L_i counts the losses that row i's noise can reach: on a graph, those of the nodes
    that the blocks to come carry it to; under batch normalisation, the copy's whole batch. The readout, which knows its
    error, follows its true gradient. A post with parameters of its own is perturbed at its output too, and is
    differentiated for them.

    Jiang et al., arXiv 2305.08960; there the readout's gradient is estimated as well, and blocks that are noisy alone
    take turns.

    Known weakness: the variance, which grows with the number of noisy values (LeNet-5 takes 16 copies for each block),
    and a bias of order sigma^2 as a gradient of the loss without noise. `antithetic`, `baseline`, `layerwise` and
    `noise` lower the variance.

    Args:
        net: a net whose layers `torch.func.vmap` can run on all copies at once.
        sigma: the noise's deviation, in units of z_k: one for all blocks, or a list.
        copies: K of each row in one batch, vectorised by `torch.func.vmap`, which refuses layers that look at values;
            what comes before the first noise is computed once.
        antithetic: whether copies are pairs of eps and -eps. In block 1 that cancels a baseline; in block k > 1 the two
            have different inputs, and b_i eps (h+ - h-)^T / 2 stays, so a baseline is what removes most of the noise
            there.
        baseline: b_i: "none", 0; the mean loss of the row's other copies, of pairs the other pairs' ("mean"),
            or the row's loss without noise ("clean"), a pass more.
        layerwise: whether every block has K copies of its own, in which it alone is noisy, and the readout learns
            without noise.
        noise: "sobol" spreads a row's copies evenly (quasi-Monte-Carlo), which pays next to a baseline only where a row
            has few noisy values; "gaussian" draws them independently.

    Raises:
        UserError: when `sigma` is not positive or not one for each block, or `copies` are too few, odd in pairs, or no
            number that the noise can have.

    """

    needs_derivatives = False

    def __init__(
        self,
        net: Net,
        sigma: float | Sequence[float] = 0.1,
        copies: int = 16,
        antithetic: bool = True,
        baseline: Baseline = "clean",
        layerwise: bool = False,
        noise: Kind = "gaussian",
    ):
        super().__init__(net)
        self.sigmas = list(sigma) if isinstance(sigma, Sequence) else [sigma] * net.depth
        if len(self.sigmas) != net.depth:
            raise UserError(f"sigma has {len(self.sigmas)} values for {net.depth} blocks; give one, or one for each")
        if min(self.sigmas) <= 0:
            raise UserError(f"sigma must be positive, not {sigma}: without noise no activity is better than another")
        _check(copies, antithetic, baseline, noise)
        self.copies, self.antithetic, self.baseline, self.layerwise = copies, antithetic, baseline, layerwise
        self.noise = NOISES[noise](net, copies // 2 if antithetic else copies)

    @classmethod
    def supports(cls, net: Net, data: Data | None = None) -> None:
        """Check the net: `torch.func.vmap` can run its layers on all copies at once."""
        super().supports(net, data)
        h, *context = net.trial()
        devices = [h.device] if h.is_cuda else []
        with preserve_modes(net), torch.no_grad(), torch.random.fork_rng(devices):
            net.train()  # as the copies find it
            h = net.block(0).op(net.stem(h), *context)[None]
            for k in range(net.depth):
                try:
                    h = h if k == 0 else _each(net.block(k).op, h, tuple(context))[0]
                    h = _each(net.block(k).post, h, ())[0]
                except (RuntimeError, ValueError) as error:
                    raise Unsupported(
                        f"likelihood_ratio runs all copies at once, by torch.func.vmap, which block {k + 1} of this "
                        f"{type(net).__name__} does not allow: {str(error).splitlines()[0]}"
                    ) from error

    def gradients(self, batch: Batch) -> Metrics:
        """Fill `.grad` with the estimate; return the loss that the readout learns from."""
        return completed(self.by_block(batch))

    def by_block(self, batch: Batch) -> Iterator[Metrics]:
        """Fill `.grad` as `gradients` does, pausing after the readout and after each noisy layer."""
        streams, sites = Streams(self.net.stem(batch.x)), list[Site]()
        for k in range(self.net.depth):
            block = self.net.block(k)
            for module, context in ((block.op, batch.context), (block.post, ())):
                self._push(streams, module, context)
                if any(p.requires_grad for p in module.parameters()):
                    first = sum(site.noise[0, 0].numel() for site in sites)
                    sites.append(self._perturb(streams, k, first))
        readout = Head(self.net.view, self.net.readout)
        self._push(streams, readout, batch.context if self.net.readout_takes_context else ())
        losses = self._learn_readout(streams, batch)
        yield {"loss": losses.mean()}
        if streams.noisy is not None:
            shares = self._shares(streams, batch)
            for j, (value, noise, sigma, hops) in enumerate(sites):
                w = self._reached(shares[j if self.layerwise else 0], batch, hops)
                delta = noise * w.reshape(*w.shape, *(1,) * (noise.dim() - w.dim())) / sigma**2
                accumulate_grad(value, (delta if value.dim() == delta.dim() else delta.sum(0)).to(value.dtype))
                yield {}

    def _push(self, streams: Streams, module: nn.Module, context: tuple[Tensor, ...] = ()) -> None:
        """Bring the streams through a module, with its graph in those that it learns from."""
        clean, noisy = streams.clean, streams.noisy
        if clean is not None:
            with torch.set_grad_enabled(self.layerwise or noisy is None):
                streams.clean = module(clean.detach(), *context)
        if noisy is not None:
            with torch.set_grad_enabled(not self.layerwise):
                streams.noisy, buffers = _each(module, noisy.detach(), context)
            if clean is None:
                self.write_buffers(module, buffers)

    def _perturb(self, streams: Streams, k: int, first: int) -> Site:
        """Add noise to what a module gave: to the copies, or to new copies of the clean rows."""
        sigma, fresh = self.sigmas[k], self.layerwise or streams.noisy is None
        value = streams.clean if fresh else streams.noisy
        assert value is not None
        noise = self.noise.draw(value if fresh else value[0], next(self.parameters()).dtype, first) * sigma
        noise = torch.cat([noise, -noise]) if self.antithetic else noise
        copies = value.detach() + noise
        streams.noisy = copies if not self.layerwise or streams.noisy is None else torch.cat([streams.noisy, copies])
        if not (self.layerwise or self.baseline == "clean"):
            streams.clean = None
        return Site(value, noise, sigma, hops=self.net.depth - 1 - k + self.net.readout_takes_context)

    def _learn_readout(self, streams: Streams, batch: Batch) -> Tensor:
        """Fill the readout's `.grad` and return the losses that it learns from."""
        logits = streams.clean if self.layerwise or streams.noisy is None else streams.noisy
        assert logits is not None
        output = logits.detach().requires_grad_()
        losses = self._row_losses(output, batch, streams=logits is not streams.clean)
        (error,) = torch.autograd.grad(losses.mean(), output)
        accumulate_grad(logits, error)
        return losses.detach()

    @torch.no_grad()
    def _shares(self, streams: Streams, batch: Batch) -> Tensor:
        """Return the losses, less their baseline, as shares of the mean: (sites, K, M), one for all sites if joint."""
        assert streams.noisy is not None
        losses = self._row_losses(streams.noisy, batch, streams=True).unflatten(0, (-1, self.copies))
        if self.baseline == "mean":
            # A copy's own pair shares its noise, so only the others' losses are independent of it.
            own = losses.unflatten(1, (2, -1)).mean(1).repeat(1, 2, 1) if self.antithetic else losses
            count = losses.shape[1] // 2 if self.antithetic else losses.shape[1]
            losses = losses - (losses.mean(1, keepdim=True) * count - own) / (count - 1)
        elif streams.clean is not None and self.baseline == "clean":
            losses = losses - self._row_losses(streams.clean, batch, streams=False)
        return losses / (self.copies * len(batch.target))

    def _row_losses(self, output: Tensor, batch: Batch, *, streams: bool) -> Tensor:
        """Return the loss of each row with a target, (M,) or (S, M), from outputs, (N, ..., C) or (S, N, ..., C)."""
        many = output if streams else output[None]
        many = many if batch.index is None else many.index_select(1, batch.index)
        losses = self.task.row_losses(many, batch.target)
        return losses if streams else losses[0]

    def _reached(self, shares: Tensor, batch: Batch, hops: int) -> Tensor:
        """Return the sum of the shares, (K, M), that each row's noise reaches: (K, N), or (K, 1) if all."""
        if self.net.normalises_batch():
            return shares.sum(-1, keepdim=True)
        return shares @ _reach(batch, hops).to(shares.dtype).T if self.net.graph else shares


def _reach(batch: Batch, hops: int) -> Tensor:
    """Return whether a path of at most `hops` edges leads from each node to each labelled one, (N, M), as 0 or 1."""
    (source, target), n = batch.context[0], len(batch.x)
    nodes = torch.arange(n, device=source.device) if batch.nodes is None else batch.nodes
    reach = torch.zeros(n, len(nodes), device=source.device).scatter_(0, nodes[None], 1.0)
    for _ in range(hops):
        reach = reach.index_add(0, source, reach.index_select(0, target)).clamp_max(1)
    return reach


def _each(module: nn.Module, h: Tensor, context: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the module's output for each stream, (S, N, ...), and its buffers, the streams' mean."""
    if not context and not list(module.buffers()) and any(isinstance(m, nn.RNNBase) for m in module.modules()):
        # vmap knows no recurrent layer; a stream's rows are rows like others to it.
        return module(h.flatten(0, 1)).unflatten(0, h.shape[:2]), {}

    def apply(h: Tensor, buffers: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return functional_call(module, buffers, (h, *context)), buffers

    if any(isinstance(m, nn.AdaptiveAvgPool2d) for m in module.modules()):
        # Where a map lies channels last torch restrides its mean, stream by stream, and warns that this is slow.
        h = h.contiguous()
    buffers = {name: buffer.expand(len(h), *buffer.shape).clone() for name, buffer in module.named_buffers()}
    with EstimatorTrainer.transformable_attention():
        out, buffers = vmap(apply, randomness="different")(h, buffers)
    return out, {name: b.mean(0) if b.is_floating_point() else b[0] for name, b in buffers.items()}


def _check(copies: int, antithetic: bool, baseline: str, noise: str) -> None:
    """Raise UserError where the options contradict each other."""
    if copies < 1:
        raise UserError(f"copies must be 1 or more, not {copies}")
    if antithetic and copies % 2:
        raise UserError(f"antithetic copies come in pairs, and {copies} is odd; use copies={copies + 1}")
    if baseline == "mean" and copies < (4 if antithetic else 2):
        others, least = ("other pairs", 4) if antithetic else ("other copies", 2)
        raise UserError(
            f"baseline=mean is the mean loss of a row's {others}, and there are none; use copies={least} or more, or "
            "baseline=clean"
        )
    if baseline == "mean" and noise == "sobol":
        raise UserError("a Sobol net's points are not independent, so their mean is no baseline; use baseline=clean")
