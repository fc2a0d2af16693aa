"""NoProp against NumPy, straight from the paper's equations, and that nothing passes between its blocks."""

import math
import signal
from typing import Any

import numpy as np
import pytest
import torch

from localearn import MLP, Denoiser, NoProp, Regression, Unsupported, UserError
from localearn.data import Batch
from localearn.nets.denoiser import cosine_alpha_bar
from localearn.testing import probes
from localearn.trainers.local.noprop import Prototypes
from localearn.training import Callback
from tests.helpers.denoisers import denoiser, images, rows

N, C, SHAPE = 5, 3, (4,)
ETA, SIGMA = 0.7, 0.3
EMBEDDINGS = {"onehot": 3, "learned": 2, "prototype": 4}  # and their lengths d


def batch():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, *SHAPE, generator=generator, dtype=torch.float64)
    return Batch(x, torch.tensor([0, 1, 2, 1, 1]))


def made(form, embedding, **options):
    """Return the rule on a tiny net without normalisation, whose weights are large enough for softmaxes to matter."""
    torch.manual_seed(0)
    net = denoiser("mlp", SHAPE, C, form=form, embedding=embedding, dim=2, hidden=6, norm="none", **options).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return NoProp(net, eta=None if form == "fm" else ETA, sigma=SIGMA if form == "fm" else 0.0)


def net_of(trainer) -> Denoiser:
    assert isinstance(trainer.net, Denoiser)
    return trainer.net


# What follows knows the equations, and of the net no more than its weights by name.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softplus(a):
    return np.log1p(np.exp(a))


def softmax(a):
    e = np.exp(a - a.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(logits, y):
    return -np.log(softmax(logits)[np.arange(len(y)), y]).mean()


def network(w, k, x, z, t, form, embedding):
    """f(x, z, t), the logits: figure 6 with fully connected layers for x."""

    def linear(name, h):
        name = f"net.blocks.{k}.op.network.{name}"
        return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def relu(h):
        return np.maximum(h, 0)

    def image(of, rows_):
        return relu(linear(f"{of}.3", relu(linear(f"{of}.1", rows_))))

    seen = [image("of_x", x)]
    if embedding == "prototype":
        seen.append(image("of_z", z))
    elif form == "dt":
        first = relu(linear("of_z.first.0", z))
        seen.append(first + linear("of_z.rest.2", relu(linear("of_z.rest.0", first))))
    else:
        seen.append(relu(linear("of_z.0", z)))
    if t is not None:
        angles = t[:, None] * (1000 * 10000.0 ** (-np.arange(32) / 32)).astype(np.float32)
        seen.append(relu(linear("of_t.0", np.concatenate([np.sin(angles), np.cos(angles)], 1))))
    h = relu(linear("head.0", np.concatenate(seen, 1)))
    return linear("head.4", relu(linear("head.2", h)))


def gamma(w, t):
    """Gamma(t), eq. 66 and 67."""

    def g(s):
        v, first = softplus(w["net.schedule.second"]), softplus(w["net.schedule.first"])
        return sigmoid(np.atleast_1d(s)[:, None] * first + w["net.schedule.bias"]) @ v

    share = (g(t) - g(0.0)) / (g(1.0) - g(0.0))
    return w["net.schedule.low"] + softplus(w["net.schedule.span"]) * (1 - share)


def expected_loss(w, form, embedding, x, y, noise, t):
    """The loss of a step, eq. 8, 9 or 13, as a function of all weights: the gradient is that of this."""
    u_all = w.get("net.embedding.weight", np.eye(C))
    u = u_all[y]

    def divergence(first):  # of N(sqrt(first) u, 1 - first) from N(0, 1)
        mean, variance = np.sqrt(first) * u, 1 - first
        return 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum(1).mean()

    def out(name, z):
        return z @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    if form == "dt":
        bar = [math.cos(math.pi / 2 * (1 - s / 2 + 0.008) / 1.008) ** 2 for s in range(3)]
        ratio = [a / (1 - a) for a in bar]
        loss = cross_entropy(out("net.readout", np.sqrt(bar[2]) * u + np.sqrt(1 - bar[2]) * noise[:, 2]), y)
        loss += divergence(bar[0])
        for k in range(2):
            z = np.sqrt(bar[k]) * u + np.sqrt(1 - bar[k]) * noise[:, k]
            estimate = softmax(network(w, k, x, z, None, form, embedding)) @ u_all
            loss += ETA / 2 * (ratio[k + 1] - ratio[k]) * ((estimate - u) ** 2).sum(1).mean()
        return loss
    if form == "ct":
        bar = sigmoid(-gamma(w, t))[:, None]
        slope = np.exp(-gamma(w, t + 1e-20j)).imag / 1e-20  # SNR', by a complex step, which rounds nothing away
        z = np.sqrt(bar) * u + np.sqrt(1 - bar) * noise[:, 0]
        estimate = softmax(network(w, 0, x, z, t, form, embedding)) @ u_all
        first, last = sigmoid(-gamma(w, np.array([0.0, 1.0])))
        loss = ETA / 2 * (slope * ((estimate - u) ** 2).sum(1)).mean() + divergence(first)
        return loss + cross_entropy(out("net.readout", np.sqrt(last) * u + np.sqrt(1 - last) * noise[:, 1]), y)
    s, start = t[:, None], noise[:, 0]
    z = s * u + (1 - s) * start + SIGMA * noise[:, 1]
    velocity = network(w, 0, x, z, t, form, embedding) @ u_all
    loss = ((velocity - (u - start)) ** 2).sum(1).mean()
    return loss + (cross_entropy(out("anchor", z + (1 - s) * velocity), y) if embedding != "onehot" else 0)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("form", ["dt", "ct", "fm"])
def test_a_step_is_that_of_the_equations(form, embedding):
    """SGD's step is the gradient of the paper's loss, by differences in NumPy, in all weights, by the noise drawn."""
    trainer, rows_ = made(form, embedding), batch()
    weights = {name: p.detach().numpy().copy() for name, p in trainer.named_parameters()}
    torch.manual_seed(5)
    noise = torch.randn(N, trainer.net.depth + 1, EMBEDDINGS[embedding], dtype=torch.float64).numpy()
    t = None if form == "dt" else torch.rand(N, dtype=torch.float64).numpy()

    *_, phase = trainer.phases()
    torch.manual_seed(5)
    told = probes.learn(phase, probes.begun(trainer, phase, rows_))
    torch.optim.SGD(phase.parameters, lr=0.1).step()

    known = (form, embedding, rows_.x.numpy(), rows_.target.numpy(), noise, t)
    np.testing.assert_allclose(told["loss"], expected_loss(weights, *known), rtol=1e-7)
    moved = {name: (weights[name] - p.detach().numpy()) / 0.1 for name, p in trainer.named_parameters()}
    draw = np.random.RandomState(0)
    for name, step in moved.items():
        for index in draw.permutation(step.size)[:4]:  # four of a tensor's values, which each sign or transpose changes
            place = np.unravel_index(index, step.shape)
            slopes = []
            for sign in (1, -1):
                there = {other: value.copy() for other, value in weights.items()}
                there[name][place] += sign * 1e-6
                slopes.append(sign * expected_loss(there, *known))
            assert step[place] == pytest.approx(sum(slopes) / 2e-6, rel=2e-5, abs=2e-6), (name, place)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_prediction_is_the_chain_of_equation_3_with_the_noise_of_its_seed(embedding):
    trainer, rows_ = made("dt", embedding), batch()
    net = net_of(trainer).eval()
    w = {name: p.detach().numpy() for name, p in trainer.named_parameters()}
    x, u_all = rows_.x.numpy(), w.get("net.embedding.weight", np.eye(C))
    bar = cosine_alpha_bar(2)
    for seed in (0, 7):
        net.redraw(seed)
        drawn = torch.randn(1021, EMBEDDINGS[embedding], generator=torch.Generator().manual_seed(seed)).double().numpy()
        noise = drawn[np.arange(N)[:, None] * 3 + np.arange(3)]
        z = noise[:, 0]
        for k in range(2):
            estimate = softmax(network(w, k, x, z, None, "dt", embedding)) @ u_all
            alpha = bar[k] / bar[k + 1]
            z = (
                math.sqrt(bar[k + 1]) * (1 - alpha) / (1 - bar[k]) * estimate
                + math.sqrt(alpha) * (1 - bar[k + 1]) / (1 - bar[k]) * z
                + math.sqrt((1 - bar[k + 1]) * (1 - alpha) / (1 - bar[k])) * noise[:, k + 1]
            )
        logits = z @ w["net.readout.weight"].T + w["net.readout.bias"]
        np.testing.assert_allclose(net(rows_.x).detach(), logits, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(trainer.predict(rows_.x).detach(), logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["ct", "fm"])
def test_prediction_in_continuous_time_is_its_steps(form):
    trainer, rows_ = made(form, "learned", steps=4), batch()
    net = net_of(trainer).eval()
    w = {name: p.detach().numpy() for name, p in trainer.named_parameters()}
    noise = net.noise.vectors.numpy()[np.arange(N)[:, None] * 5 + np.arange(5)]
    x, u_all, z = rows_.x.numpy(), w["net.embedding.weight"], noise[:, 0]
    for i in range(4):
        logits = network(w, 0, x, z, np.full(N, i / 4), form, "learned")
        if form == "fm":
            z = z + logits @ u_all / 4
            continue
        before, after = sigmoid(-gamma(w, np.array([i / 4, (i + 1) / 4])))
        alpha = before / after
        mean = math.sqrt(after) * (1 - alpha) * (softmax(logits) @ u_all) + math.sqrt(alpha) * (1 - after) * z
        z = mean / (1 - before) + math.sqrt((1 - after) * (1 - alpha) / (1 - before)) * noise[:, i + 1]
    if form == "fm":
        expected = -((z[:, None] - u_all) ** 2).sum(2)
    else:
        expected = z @ w["net.readout.weight"].T + w["net.readout.bias"]
    np.testing.assert_allclose(net(rows_.x).detach(), expected, rtol=1e-8, atol=1e-11)


def test_blocks_learn_in_any_order_and_apart():
    """Each block's gradient is the same alone, last first, or in a row, for nothing passes between them."""
    trainer, rows_ = made("dt", "onehot"), batch()
    torch.manual_seed(1)
    trainer.gradients(rows_)
    together = {name: p.grad.clone() for name, p in trainer.named_parameters() if p.grad is not None}
    for order in ([1, 0], [0], [1]):
        trainer.zero_grad()
        torch.manual_seed(1)
        noise, told = trainer.first_input(rows_)
        assert told == {}
        for k in order:
            passed, _ = trainer.learn_block(k, noise, rows_)
            assert passed.data_ptr() == noise.data_ptr(), "what is passed on is the noise as it was drawn"
        found = {name: p.grad for name, p in trainer.named_parameters() if p.grad is not None}
        blocks = {f"net.blocks.{k}." for k in order}
        expected = {n: g for n, g in together.items() if any(n.startswith(b) for b in blocks)}
        if 1 in order:
            expected |= {n: g for n, g in together.items() if n.startswith("net.readout.")}
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], grad) for name, grad in expected.items())


@pytest.mark.parametrize("form", ["dt", "ct", "fm"])
def test_a_blocks_loss_reaches_what_it_may_and_no_other_block(form):
    trainer, rows_ = made(form, "learned"), batch()
    noise, _ = trainer.first_input(rows_)
    for k in range(trainer.net.depth):
        _, loss, _ = trainer.run_block(k, noise, rows_)
        names, parameters = zip(*trainer.named_parameters(), strict=True)
        reached = {
            name
            for name, grad in zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True)
            if grad is not None
        }
        allowed = {id(p) for p in trainer.block_parameters(k)}
        assert reached == {name for name, p in trainer.named_parameters() if id(p) in allowed}
        assert not any(name.startswith(f"net.blocks.{1 - k}.") for name in reached)


def test_prototypes_begin_as_the_image_with_the_least_median_distance():
    trainer = NoProp(images(embedding="prototype").net())
    known = images().batch
    x, y = known.x.flatten(1).numpy().astype(np.float64), known.target.numpy()
    first, _ = trainer.phases()
    assert isinstance(first, Prototypes)
    first.rows = 7  # so that a class is more than one block of rows
    told = probes.solve(first, *probes.halves(known))
    expected, least = [], []
    for label in range(2):
        own = x[y == label]
        distances = np.sqrt(((own[:, None] - own[None]) ** 2).sum(2))
        medians = [np.sort(np.delete(row, i))[(len(own) - 2) // 2] for i, row in enumerate(distances)]
        expected.append(own[int(np.argmin(medians))])
        least.append(min(medians))
    np.testing.assert_allclose(net_of(trainer).embedding.weight.detach(), np.stack(expected), rtol=1e-6)
    assert told["loss"].item() == pytest.approx(np.mean(least), rel=1e-4)
    logits = net_of(trainer).readout(net_of(trainer).embedding.weight)
    assert logits.argmax(1).tolist() == [0, 1], "the readout begins with the nearest prototype"


def test_inference_has_seeds_of_its_own():
    trainer = NoProp(rows().net(), inference_seed=3, inference_runs=2)
    x = rows().batch.x
    trainer.eval()
    assert trainer.inference_seeds == (3, 4)
    first = trainer.predict(x)
    torch.manual_seed(99)
    assert torch.equal(trainer.predict(x), first), "torch's generator, the run's, says nothing in a prediction"
    state = torch.get_rng_state()
    trainer.redraw(4)
    other = trainer.predict(x)
    assert not torch.equal(other, first)
    assert torch.equal(torch.get_rng_state(), state), "and a prediction takes nothing from it"
    fresh = rows().net()
    fresh.load_state_dict(trainer.net.state_dict())
    assert torch.equal(fresh.eval()(x), other), "a net is saved with the seed that it predicts with"


def test_final_figures_are_means_over_the_inference_seeds():
    data = rows().data
    torch.manual_seed(0)
    trainer = NoProp(denoiser("mlp", (6,)), inference_seed=2, inference_runs=3)
    record = trainer.fit(data, epochs=2, batch_size=32, energy=False, progress=False)
    told = record.diagnostics["inference"]
    assert told["seeds"] == [2, 3, 4]
    for split in ("val", "test"):
        assert record.metric("accuracy", split) == pytest.approx(sum(told[split]["accuracy"]) / 3)
    assert len(set(told["test"]["loss"])) == 3
    assert net_of(trainer).noise.seed == 2
    assert record.best_epoch is not None
    assert record.history[record.best_epoch - 1]["val_loss"] == pytest.approx(told["val"]["loss"][0], rel=1e-5)


class Interrupts(Callback):
    """Ctrl-C in the midst of the second epoch's batches."""

    def step_ended(self, context):
        if context.position.passes == 1 and context.position.batch == 2:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("options", [{}, {"form": "ct", "embedding": "learned"}, {"embedding": "prototype"}], ids=str)
def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(options, tmp_path):
    def run(folder, **own):
        torch.manual_seed(0)
        trainer = NoProp(denoiser("mlp", (6,), dropout=0.2, **options))
        given = {"epochs": 3, "batch_size": 32, "energy": False, "progress": False, "out": tmp_path / folder}
        return trainer.fit(rows().data, **given, **own), trainer.state_dict()

    _, whole = run("whole")
    stopped, _ = run("parts", callbacks=[Interrupts()])
    assert stopped.status == "interrupted"
    record, resumed = run("parts", resume=True)
    assert record.status == "completed" and record.seams
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []


def test_what_does_not_fit_is_refused():
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"eta": 0.0}, "eta must be positive"),
        ({"sigma": -1.0}, "sigma must be 0 or more"),
        ({"inference_runs": 0}, "inference_runs must be 1 or more"),
    )
    for options, said in refused:
        with pytest.raises(UserError, match=said):
            NoProp(rows().net(), **options)
    with pytest.raises(Unsupported, match=r"MLP's do not; use net=noprop_mlp, net=noprop_cnn or, .*algo=mono_forward"):
        NoProp(MLP((6,), 2))
    with pytest.raises(Unsupported, match=r"noprop trains every block of Denoiser by itself; use net\.group=1"):
        NoProp(rows().net().group(2))
    with pytest.raises(Unsupported, match=r"noprop embeds a row's label, and Denoiser is for Regression.*mono_forward"):
        NoProp(Denoiser((6,), 1, embed="mlp", hidden=4).for_task(Regression()))
    with pytest.raises(UserError, match="embed=conv takes images"):
        Denoiser((6,), 2)
    with pytest.raises(UserError, match=r"embeddings that learn do so .* use net.embedding=onehot, or parallel=data"):
        NoProp(rows(embedding="learned").net()).pipelined()
