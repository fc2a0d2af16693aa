"""The net of NoProp, `Denoiser`: blocks take a noisy embedding of the label and the input, and make it less noisy."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.moved import former_names
from localearn.nets.block import Block
from localearn.nets.checks import check_classes, check_row, check_widths, choose
from localearn.nets.layers import chain
from localearn.nets.layers import dropout as dropout_layer
from localearn.nets.net import Net
from localearn.nets.views import Leading

NOISES = 1021  # vectors that predictions draw from, a prime, so that rows meet the same one at different steps
_TIME = 64  # values of a time's positional embedding
_OFFSET = 0.008  # of the cosine, so that no step is the identity; Nichol, Dhariwal, arXiv 2102.09672, eq. 17


class Denoiser(Net):
    """Denoise an embedding of the label, the net of NoProp: start from noise, and step towards a label block by block.

        h_t = (z_t, x), (N, d + n)                   x is carried along, so that blocks are a chain as in every net
        z_0 ~ N(0, 1)
        z_t = a_t uhat_t(z_{t-1}, x) + b_t z_{t-1} + sqrt(c_t) eps_t          dt, T blocks, arXiv 2503.24322, eq. 3
        logits = out(z_T)
        uhat_t = softmax(f_t(x, z_{t-1})) W                                   W, (C, d): the classes' embeddings

    f embeds x by convolutions or by an MLP, and z by a fully connected net with a skip; three layers read both, as in
    figure 6. a, b and c are those of the cosine schedule.

    form "ct" is one block for all times in [0, 1], which f has as an input; a prediction is `steps` such steps along a
    schedule that is learned. form "fm" is a flow: z_{i+1} = z_i + v(z_i, x, t_i) / steps, where v = f(x, z, t) W has
    no softmax, and the logits are -|z - W_c|^2, so that the nearest embedding is the label.

    A prediction is `net(x)`, as of every other net. Its noise then comes from the net's own seed, not from torch's
    generators: in evaluation row i of a batch has the noise of seed `inference_seed` and of place i, exactly N(0, 1)
    and independent from step to step, and rows at a distance of some hundred places share vectors of it. So the
    same call gives the same output; `redraw(seed)` changes it. In training, by a rule that sends x through the whole
    net, noise is drawn in every pass.

    Args:
        input_shape: a row's shape; (channels, height, width) for embed="conv".
        classes: C.
        form: dt, ct or fm.
        embedding: of the classes: "onehot", the fixed unit vectors, d = C; "learned", d = dim, orthogonal at first;
            "prototype", learned, d = n: an image for each class, which blocks embed as they do x.
        dim: d of "learned".
        embed: how blocks embed x: conv or mlp.
        steps: T; of dt the number of blocks, 10 where it is null, of the others that of a prediction's steps, 1000.
        channels: of the three convolutions, the first and the last of which are pooled by 2.
        hidden: the width that x, z and t are embedded in; the last hidden layer has half of it.
        dropout: after each convolution.
        norm: batch or none; null: batch in dt, none in the others, as published.

    """

    def __init__(
        self,
        input_shape: tuple[int, ...] | int = (1, 28, 28),
        classes: int = 10,
        *,
        form: str = "dt",
        embedding: str = "onehot",
        dim: int = 20,
        embed: str = "conv",
        steps: int | None = None,
        channels: Sequence[int] = (32, 64, 128),
        hidden: int = 256,
        dropout: float = 0.2,
        norm: str | None = None,
    ):
        shape = check_row("input_shape", input_shape)
        step = choose("form", form, FORMS)
        if embed == "conv" and len(shape) != 3:
            raise UserError(f"embed=conv takes images, (channels, height, width), not {shape}; use net=noprop_mlp")
        (steps,) = check_row("steps", step.default_steps if steps is None else steps)
        widths = {"onehot": check_classes(classes), "learned": check_row("dim", dim)[0], "prototype": math.prod(shape)}
        width = choose("embedding", embedding, widths)
        embeddings = ClassEmbeddings(classes, width, learned=embedding != "onehot")
        noise = InferenceNoise(width, steps + 1)
        schedule = LearnedSchedule() if form == "ct" else None

        choose("embed", embed, {"conv": True, "mlp": True})
        normalise = choose("norm", norm or step.norm, NORMS)
        (hidden,) = check_row("hidden", hidden)

        def image() -> nn.Module:
            if embed == "mlp":
                return of_rows(math.prod(shape), hidden, dropout, normalise)
            return of_images(shape, check_widths("channels", channels), hidden, dropout, normalise)

        def block(k: int) -> Block:
            images, timed = embedding == "prototype", form != "dt"
            of_z = image() if images else of_labels(width, hidden, normalise, skip=not timed)
            network = Network(shape, image(), of_z, hidden, classes, normalise, timed=timed, images=images)
            return Block(step(network, embeddings, noise, schedule, steps, k))

        count = steps if form == "dt" else 1
        readout = embeddings.nearest() if form != "fm" else Nearest(embeddings)
        super().__init__(
            [block(k) for k in range(count)], readout, input_shape=shape, stem=Start(noise), view=Leading(width)
        )
        self.form, self.embedding, self.prototypes = form, embeddings, embedding == "prototype"
        self.noise, self.schedule = noise, schedule

    def redraw(self, seed: int) -> None:
        """Predict with the noise of another seed from now on, which is saved with the weights.

        Args:
            seed: the seed.

        """
        self.noise.redraw(seed)


class ClassEmbeddings(nn.Module):
    """Hold the classes' embeddings W, (C, d): fixed unit vectors, or a parameter, orthonormal at first where C <= d."""

    weight: Tensor

    def __init__(self, classes: int, width: int, *, learned: bool):
        super().__init__()
        self.learned = learned
        if not learned:
            self.register_buffer("weight", torch.eye(classes), persistent=False)
            return
        self.weight = nn.Parameter(torch.empty(classes, width))
        if classes <= width:
            nn.init.orthogonal_(self.weight)
        else:
            nn.init.normal_(self.weight, std=width**-0.5)

    @torch.no_grad()
    def nearest(self) -> nn.Linear:
        """Return a map from z, (N, d), to logits, (N, C), at first largest for the nearest embedding."""
        linear = nn.Linear(self.weight.shape[1], len(self.weight), device=self.weight.device, dtype=self.weight.dtype)
        self.set_nearest(linear)
        return linear

    @torch.no_grad()
    def set_nearest(self, linear: nn.Linear) -> None:
        """Set a map to logits (z . W_c - |W_c|^2 / 2) / mean_c |W_c|^2."""
        lengths = self.weight.square().sum(1)
        linear.weight.copy_(self.weight / lengths.mean())
        linear.bias.copy_(-lengths / (2 * lengths.mean()))

    def forward(self, y: Tensor) -> Tensor:
        """Return u_y, (N, d), of labels y, (N,)."""
        return self.weight.index_select(0, y)


class InferenceNoise(nn.Module):
    """Draw a prediction's noise, N(0, 1): from a seed of its own in evaluation, from torch's generator in training."""

    seed: Tensor
    vectors: Tensor

    def __init__(self, width: int, draws: int):
        super().__init__()
        self.width, self.draws = width, draws
        self.register_buffer("seed", torch.tensor(0))
        self.register_buffer("vectors", torch.empty(max(NOISES, draws), width), persistent=False)
        self.register_load_state_dict_post_hook(_redrawn)
        self.redraw(0)

    def redraw(self, seed: int) -> None:
        """Draw again from a seed, on the CPU, so that it gives the same noise on every device."""
        drawn = torch.randn(self.vectors.shape, generator=torch.Generator().manual_seed(seed))
        self.seed.fill_(seed)
        self.vectors.copy_(drawn)

    def forward(self, step: int, like: Tensor) -> Tensor:
        """Return the noise of a step, 0..draws-1, for the rows of `like`, (N, d)."""
        if self.training:
            return torch.randn(like.shape[0], self.width, device=like.device, dtype=like.dtype)
        rows = torch.arange(like.shape[0], device=like.device)
        drawn = self.vectors.index_select(0, (rows * self.draws + step) % len(self.vectors))
        return drawn.to(like.dtype)


def _redrawn(noise: InferenceNoise, _: Any) -> None:
    noise.redraw(int(noise.seed))


class Start(nn.Module):
    """Return h_0 = (z_0, x): noise, and the row as a vector."""

    def __init__(self, noise: InferenceNoise):
        super().__init__()
        self._noise = (noise,)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, d + n)."""
        x = x.flatten(1)
        return torch.cat([self._noise[0](0, x), x], dim=1)


class Nearest(nn.Module):
    """Compute logits -|z - W_c|^2: the softmax's largest is the nearest embedding."""

    def __init__(self, embeddings: ClassEmbeddings):
        super().__init__()
        self._embeddings = (embeddings,)

    def forward(self, z: Tensor) -> Tensor:
        """Return (N, C)."""
        return -(z.unsqueeze(1) - self._embeddings[0].weight).square().sum(-1)


def cosine_alpha_bar(steps: int) -> list[float]:
    """Return abar_0, ..., abar_T of the fixed cosine schedule, rising from 0 to almost 1.

    abar_t = cos^2(pi / 2 (1 - t / T + s) / (1 + s)), s = 0.008: Nichol and Dhariwal's (arXiv 2102.09672, eq. 17), whose
    time runs the other way, without the division by its largest value, by which SNR(T) would be infinite.

    Args:
        steps: T.

    """
    return [math.cos(math.pi / 2 * (1 - t / steps + _OFFSET) / (1 + _OFFSET)) ** 2 for t in range(steps + 1)]


def snr(alpha_bar: float) -> float:
    """Return the signal-to-noise ratio abar / (1 - abar).

    Args:
        alpha_bar: abar, in [0, 1).

    """
    return alpha_bar / (1 - alpha_bar)


def coefficients(alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a_t, b_t, c_t, (T,) each, of z_t = a_t u + b_t z_{t-1} + sqrt(c_t) eps.

    With alpha_{t-1} = abar_{t-1} / abar_t this is the posterior q(z_t | z_{t-1}, u) of arXiv 2503.24322, eq. 40-41.

    Args:
        alpha_bar: abar_0..abar_T, (T + 1,).

    """
    before, after = alpha_bar[:-1], alpha_bar[1:]
    alpha = before / after
    a = after.sqrt() * (1 - alpha) / (1 - before)
    b = alpha.sqrt() * (1 - after) / (1 - before)
    c = (1 - after) * (1 - alpha) / (1 - before)
    return a, b, c


class LearnedSchedule(nn.Module):
    """Learn a schedule in continuous time: SNR(t) = exp(-gamma(t)), abar(t) = sigmoid(-gamma(t)), t in [0, 1].

        g(t) = sum_j v_j sigmoid(w_j t + b_j)                             v, w > 0: two layers, rising in t
        gamma(t) = gamma_0 + (gamma_1 - gamma_0) (1 - (g(t) - g(0)) / (g(1) - g(0)))

    So gamma falls from gamma_1 to gamma_0, which learn too. arXiv 2503.24322, eq. 65-67. Weights and the ends' distance
    are softplus of what is learned, which keeps them positive. The defaults of the hidden width and the first ends are
    ours: the paper gives none.

    Args:
        hidden: the number of terms j.
        ends: gamma_0 and gamma_1 at first.

    """

    def __init__(self, hidden: int = 64, ends: tuple[float, float] = (-4.0, 4.0)):
        super().__init__()
        self.first = nn.Parameter(torch.randn(hidden))
        self.bias = nn.Parameter(torch.randn(hidden))
        self.second = nn.Parameter(torch.randn(hidden))
        self.low = nn.Parameter(torch.tensor(ends[0]))
        self.span = nn.Parameter(torch.tensor(ends[1] - ends[0]).expm1().log())  # the inverse of softplus

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return gamma and its derivative, shaped as t."""
        w, v = F.softplus(self.first), F.softplus(self.second)
        ends = torch.sigmoid(torch.stack([self.bias, w + self.bias])) @ v
        s = torch.sigmoid(t.unsqueeze(-1) * w + self.bias)
        share, slope = (s @ v - ends[0]) / (ends[1] - ends[0]), (s * (1 - s)) @ (w * v) / (ends[1] - ends[0])
        span = F.softplus(self.span)
        return self.low + span * (1 - share), -span * slope

    def alpha_bar(self, t: Tensor) -> Tensor:
        """Return abar(t), shaped as t."""
        return torch.sigmoid(-self(t)[0])

    def snr_slope(self, t: Tensor) -> Tensor:
        """Return SNR'(t) = -gamma'(t) exp(-gamma(t)), shaped as t."""
        gamma, slope = self(t)
        return -slope * (-gamma).exp()


class Denoising(nn.Module, ABC):
    """Estimate where the noise-free embedding lies, and take a block's step, or steps, there.

    Class embeddings, noise and schedule are the net's, which blocks share; a block's parameters are its network's.
    """

    default_steps = 10
    norm = "batch"

    def __init__(
        self,
        network: "Network",
        embeddings: ClassEmbeddings,
        noise: InferenceNoise,
        schedule: LearnedSchedule | None,
        steps: int,
        index: int,
    ):
        super().__init__()
        self.network, self.steps, self.index = network, steps, index
        self._shared = (embeddings, noise, schedule)  # a tuple, so that they are parameters of the net alone

    def weights(self, logits: Tensor) -> Tensor:
        """Return the weight of each class's embedding in the estimate, (N, C)."""
        return logits.softmax(-1)

    def estimate(self, features: Tensor, z: Tensor, t: Tensor | None = None) -> Tensor:
        """Return uhat(z, x, t), or v of a flow, (N, d).

        Args:
            features: the network's features of x, (N, hidden).
            z: the noisy embedding, (N, d).
            t: times, (N,) or (1,), in continuous time.

        """
        return self.weights(self.network(features, z, t)) @ self._shared[0].weight

    def forward(self, h: Tensor) -> Tensor:
        """Map (z, x) to (z', x), (N, d + n)."""
        width = self._shared[1].width
        z, x = h[:, :width], h[:, width:]
        return torch.cat([self.through(self.network.encode(x), z), x], dim=1)

    @abstractmethod
    def through(self, features: Tensor, z: Tensor) -> Tensor:
        """Return z after the block's step or steps, (N, d).

        Args:
            features: the network's features of x, (N, hidden).
            z: the noisy embedding before it, (N, d).

        """

    def draw(self, step: int, like: Tensor) -> Tensor:
        """Return the noise of a prediction's step, (N, d).

        Args:
            step: the step, 0..T.
            like: a tensor of N rows, (N, d), of the noise's dtype and device.

        """
        return self._shared[1](step, like)


class DiscreteStep(Denoising):
    """Take one step of a diffusion in T blocks, from z_k to z_{k+1}."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.alpha_bar = cosine_alpha_bar(self.steps)
        exact = torch.tensor(self.alpha_bar, dtype=torch.float64, device="cpu")
        self.a, self.b, self.c = (part[self.index].item() for part in coefficients(exact))

    def through(self, features: Tensor, z: Tensor) -> Tensor:
        """Return z_{k+1}, (N, d)."""
        mean = self.a * self.estimate(features, z) + self.b * z
        return mean + math.sqrt(self.c) * self.draw(self.index + 1, z)


class Diffusion(Denoising):
    """Take `steps` steps of a diffusion in continuous time by one network, along the learned schedule."""

    default_steps = 1000
    norm = "none"

    def through(self, features: Tensor, z: Tensor) -> Tensor:
        """Return z at time 1, (N, d)."""
        schedule = self._shared[2]
        assert schedule is not None
        times = torch.linspace(0, 1, self.steps + 1, device=z.device, dtype=z.dtype)
        a, b, c = coefficients(schedule.alpha_bar(times))
        for i in range(self.steps):
            u = self.estimate(features, z, times[i : i + 1])
            z = a[i] * u + b[i] * z + c[i].sqrt() * self.draw(i + 1, z)
        return z


class Flow(Denoising):
    """Take `steps` Euler steps of a flow along the velocity that the network gives."""

    default_steps = 1000
    norm = "none"

    def weights(self, logits: Tensor) -> Tensor:
        """Return the logits as they are, so that a velocity may point anywhere among the embeddings."""
        return logits

    def through(self, features: Tensor, z: Tensor) -> Tensor:
        """Return z at time 1, (N, d)."""
        times = torch.linspace(0, 1, self.steps + 1, device=z.device, dtype=z.dtype)
        for i in range(self.steps):
            z = z + self.estimate(features, z, times[i : i + 1]) / self.steps
        return z


FORMS: Mapping[str, type[Denoising]] = {"dt": DiscreteStep, "ct": Diffusion, "fm": Flow}
Normalise = Callable[[int], nn.Module]
NORMS: Mapping[str, Normalise] = {"batch": nn.BatchNorm1d, "none": lambda width: nn.Identity()}


class Network(nn.Module):
    """Compute the logits f(x, z, t), (N, C): x, z and, if any, a time are embedded, and three layers read all."""

    frequencies: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        of_x: nn.Module,
        of_z: nn.Module,
        hidden: int,
        classes: int,
        normalise: Normalise,
        *,
        timed: bool,
        images: bool,
    ):
        super().__init__()
        self.shape, self.of_x, self.of_z = shape, of_x, of_z
        self.label_shape = shape if images else (-1,)
        self.of_t = nn.Sequential(nn.Linear(_TIME, hidden), nn.ReLU()) if timed else None
        half = _TIME // 2
        rates = [1000 * 10000 ** (-i / half) for i in range(half)]  # a time in [0, 1] is one of 1000 steps
        self.register_buffer("frequencies", torch.tensor(rates), persistent=False)
        sizes = (hidden * (3 if timed else 2), hidden, max(1, hidden // 2))
        layers = [
            layer for n_in, n_out in itertools.pairwise(sizes) for layer in dense(n_in, n_out, normalise, nn.ReLU())
        ]
        self.head = chain(*layers, nn.Linear(sizes[-1], classes))

    def encode(self, x: Tensor) -> Tensor:
        """Return the features of x, (N, hidden), which steps in continuous time compute only once."""
        return self.of_x(x.reshape(x.shape[0], *self.shape))

    def forward(self, features: Tensor, z: Tensor, t: Tensor | None = None) -> Tensor:
        """Compute the logits, (N, C).

        Args:
            features: of x, (N, hidden).
            z: (N, d).
            t: times, (N,) or (1,), where the network is given any.

        """
        of_z = self.of_z(z.unflatten(1, self.label_shape))
        if self.of_t is None or t is None:
            return self.head(torch.cat([features, of_z], dim=1))
        angles = t.unsqueeze(-1) * self.frequencies
        of_t = self.of_t(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return self.head(torch.cat([features, of_z, of_t.expand(z.shape[0], -1)], dim=1))


class Skip(nn.Module):
    """Compute first(z) + rest(first(z))."""

    def __init__(self, first: nn.Module, rest: nn.Module):
        super().__init__()
        self.first, self.rest = first, rest

    def forward(self, z: Tensor) -> Tensor:
        """Return (N, hidden)."""
        z = self.first(z)
        return z + self.rest(z)


def dense(n_in: int, n_out: int, normalise: Normalise, *after: nn.Module) -> tuple[nn.Module, ...]:
    """Return a Linear layer, with a bias only where no normalisation follows, its normalisation, and what follows.

    Args:
        n_in: the width of its input.
        n_out: the width of its output.
        normalise: builds the normalisation.
        after: the modules that follow.

    """
    norm = normalise(n_out)
    return nn.Linear(n_in, n_out, bias=isinstance(norm, nn.Identity)), norm, *after


def of_images(
    shape: tuple[int, ...], channels: Sequence[int], hidden: int, rate: float, normalise: Normalise
) -> nn.Sequential:
    """Build what embeds an image, (N, *shape), in (N, hidden): three convolutions and a fully connected layer.

    Args:
        shape: (channels, height, width), of 4x4 pixels or more.
        channels: three numbers.
        hidden: the width of the embedding.
        rate: the probability of dropout after each convolution.
        normalise: builds the normalisation.

    Raises:
        UserError: for other numbers of channels and smaller images.

    """
    if len(channels) != 3 or min(shape[1:]) < 4:
        raise UserError(
            f"embed=conv has three convolutions: it needs 3 channels, not {channels}, and images of 4x4 pixels or more"
        )
    layers: list[nn.Module] = []
    for k, (n_in, n_out) in enumerate(itertools.pairwise((shape[0], *channels))):
        pooled = nn.MaxPool2d(2) if k != 1 else nn.Identity()
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(), pooled, dropout_layer(rate)]
    flat = channels[-1] * (shape[1] // 4) * (shape[2] // 4)
    return chain(*layers, nn.Flatten(), *_embedded(flat, hidden, normalise))


def of_rows(n: int, hidden: int, rate: float, normalise: Normalise) -> nn.Sequential:
    """Build what embeds a row, (N, ...) of n values, in (N, hidden): two fully connected layers.

    Args:
        n: the number of values.
        hidden: the width of the embedding.
        rate: the probability of dropout.
        normalise: builds the normalisation.

    """
    first = dense(n, hidden, normalise, nn.ReLU(), dropout_layer(rate))
    return chain(nn.Flatten(), *first, *_embedded(hidden, hidden, normalise))


def of_labels(width: int, hidden: int, normalise: Normalise, *, skip: bool) -> nn.Module:
    """Build what embeds z, (N, d), in (N, hidden): three layers with a skip around two, or one.

    Args:
        width: d.
        hidden: the width of the embedding.
        normalise: builds the normalisation.
        skip: whether there are three layers.

    """
    first = chain(*dense(width, hidden, normalise, nn.ReLU()))
    if not skip:
        return first
    rest = (*dense(hidden, hidden, normalise, nn.ReLU()), *dense(hidden, hidden, normalise))
    return Skip(first, chain(*rest))


def _embedded(n: int, hidden: int, normalise: Normalise) -> tuple[nn.Module, ...]:
    """Return the layer that ends an embedding, then its normalisation or else a ReLU, as in the two published."""
    linear, norm = dense(n, hidden, normalise)
    return linear, nn.ReLU() if isinstance(norm, nn.Identity) else norm


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
