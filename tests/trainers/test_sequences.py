"""Rules on outputs of positions, (N, T, C): each against NumPy, backprop or its own mathematics, with padding in it."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

import localearn
from localearn import (
    Backprop,
    Batch,
    Block,
    CaFo,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    ForwardForward,
    ForwardGradient,
    LikelihoodRatio,
    MonoForward,
    Net,
    Pepita,
    ProductFeedbackAlignment,
    SignSymmetry,
    Unsupported,
    UserError,
)
from localearn.nets import InputSpec, PerPosition, Pooled
from localearn.nets.introspection import linear_maps, unmapped_matrices
from localearn.tasks import LanguageModelling
from localearn.tasks.language import PADDING
from localearn.testing import probes
from tests.helpers.sequences import D, T, V, attentive, padded, padded_values, plain, values, without_padding

FALSE_ALARM = 1e-6  # of each statistical test below, over all that it compares


def cafo_ce(net):
    return CaFo(net, loss="ce")


def cafo_sparsemax(net):
    return CaFo(net, loss="sparsemax", blocks="dfa")


DETERMINISTIC = [
    Backprop,
    MonoForward,
    CaFo,
    cafo_ce,
    cafo_sparsemax,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    SignSymmetry,
    ProductFeedbackAlignment,
    ForwardGradient,  # by local guesses, which draw nothing
]
DRAWING = [
    ForwardForward,
    LikelihoodRatio,
    lambda net: ForwardGradient(net, guess="noise"),
    lambda net: ForwardGradient(net, space="weight"),
]


def softmax(o):
    p = np.exp(o - o.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def by_hand(net, batch):
    """Return of a net of `values` the arrays W and b of each block and the readout, x, one-hot targets and the mask."""
    layers = [net.block(0).op, net.block(1).op, net.readout]
    arrays = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in layers]
    counted = (batch.target != PADDING).numpy()
    one_hot = np.zeros((*batch.target.shape, V))
    one_hot[counted, batch.target[batch.target != PADDING].numpy()] = 1
    return arrays, batch.x.numpy(), one_hot, counted


def error_of(output, one_hot, counted):
    """Return (softmax(o) - Y) / E, zero where padded, E the positions that count."""
    return (softmax(output) - one_hot) * counted[..., None] / counted.sum()


def product(delta, h):
    return np.einsum("ntc,ntd->cd", delta, h)


def assert_close(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_dfa_projects_the_error_of_each_position():
    """delta_k = e B_k, (N, T, C) times (C, D), times tanh's derivative; in NumPy."""
    trainer, batch = DirectFeedbackAlignment(values(), scale="width"), padded_values()
    ((w1, b1), (w2, b2), (wo, bo)), x, one_hot, counted = by_hand(trainer.net, batch)
    h1 = np.tanh(x @ w1.T + b1)
    h2 = np.tanh(h1 @ w2.T + b2)
    error = error_of(h2 @ wo.T + bo, one_hot, counted)
    signal = error @ trainer.feedback.numpy() / math.sqrt(D)
    delta1, delta2 = signal * (1 - h1**2), signal * (1 - h2**2)
    assert_close(
        probes.gradients_of(trainer, batch),
        {
            "all/net.blocks.0.op.weight": product(delta1, x),
            "all/net.blocks.0.op.bias": delta1.sum((0, 1)),
            "all/net.blocks.1.op.weight": product(delta2, h1),
            "all/net.readout.weight": product(error, h2),
            "all/net.readout.bias": error.sum((0, 1)),
        },
    )


def test_dfa_spreads_a_pooled_error_over_the_positions():
    trainer = DirectFeedbackAlignment(values(Pooled()), scale="width")
    batch = Batch(padded_values().x, torch.arange(6) % V)
    ((w1, b1), (w2, b2), (wo, bo)), x, *_ = by_hand(trainer.net, padded_values())
    h1 = np.tanh(x @ w1.T + b1)
    h2 = np.tanh(h1 @ w2.T + b2)
    error = (softmax(h2.mean(1) @ wo.T + bo) - np.eye(V)[batch.target.numpy()]) / 6
    signal = (error @ trainer.feedback.numpy() / math.sqrt(D))[:, None] / T
    assert_close(
        probes.gradients_of(trainer, batch),
        {
            "all/net.blocks.0.op.weight": product(signal * (1 - h1**2), x),
            "all/net.blocks.1.op.weight": product(signal * (1 - h2**2), h1),
        },
    )


def test_mono_forward_projects_each_position():
    """Each block follows the cross-entropy of its own projection at the positions that count; in NumPy."""
    trainer, batch = MonoForward(values()), padded_values()
    ((w1, b1), (w2, b2), (wo, bo)), x, one_hot, counted = by_hand(trainer.net, batch)
    m = trainer.projections[0].get_parameter("weight").detach().numpy()
    h1 = np.tanh(x @ w1.T + b1)
    h2 = np.tanh(h1 @ w2.T + b2)
    one, two = error_of(h1 @ m.T, one_hot, counted), error_of(h2 @ wo.T + bo, one_hot, counted)
    assert_close(
        probes.gradients_of(trainer, batch),
        {
            "all blocks/projections.0.weight": product(one, h1),
            "all blocks/net.blocks.0.op.weight": product((one @ m) * (1 - h1**2), x),
            "all blocks/net.blocks.1.op.weight": product((two @ wo) * (1 - h2**2), h1),
            "all blocks/net.readout.weight": product(two, h2),
        },
    )


@pytest.mark.parametrize("make", [values, attentive])
def test_cafos_ridge_is_that_of_the_positions_that_count(make):
    trainer = CaFo(make(), ridge=0.05)
    batch = padded_values() if make is values else padded()
    counted, target = without_padding(batch)
    found = probes.solutions_of(trainer, batch, parts=2)
    with torch.no_grad():
        features = [h[counted].numpy() for h in trainer.net.outputs(batch.x)]
    names = [*(f"predictors.{k}" for k in range(trainer.net.depth - 1)), "net.readout"]
    for k, (h, name) in enumerate(zip(features, names, strict=True)):
        reference = Ridge(alpha=0.05 * len(h) * (h**2).mean(), solver="svd").fit(h, np.eye(V)[target.numpy()])
        solved = found[f"predictor {k + 1}/{name}.weight"].numpy()
        np.testing.assert_allclose(solved, reference.coef_, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("loss", "slope"), [("ce", lambda o, y: softmax(o) - y), ("mse", lambda o, y: 2 * (o - y))])
def test_cafos_gradients_are_of_the_positions_that_count(loss, slope):
    trainer, batch = CaFo(values(), loss=loss, solver="gradient"), padded_values()
    ((w1, b1), *_), x, one_hot, counted = by_hand(trainer.net, batch)
    h1 = np.tanh(x @ w1.T + b1)
    error = slope(np.zeros((6, T, V)), one_hot) * counted[..., None] / counted.sum()  # predictors start from zero
    found = probes.gradients_of(trainer, batch)["predictor 1/predictors.0.weight"]
    np.testing.assert_allclose(found.numpy(), product(error, h1), rtol=1e-9, atol=1e-12)


def test_pepita_adds_each_positions_error_to_its_own_values():
    """x' = x + e F^T at each position, and differences of activities over the positions that count; in NumPy."""
    trainer, batch = Pepita(values(), scale=0.3), padded_values()
    ((w1, b1), (w2, b2), (wo, bo)), x, one_hot, counted = by_hand(trainer.net, batch)
    assert trainer.feedback.shape == (3, V)

    def run(x):
        h1 = np.tanh(x @ w1.T + b1)
        h2 = np.tanh(h1 @ w2.T + b2)
        return h1, h2, error_of(h2 @ wo.T + bo, one_hot, counted)

    h1, h2, error = run(x)
    again = x + counted.sum() * error @ trainer.feedback.numpy().T
    k1, k2, second = run(again)
    assert_close(
        probes.gradients_of(trainer, batch),
        {
            "all/net.blocks.0.op.weight": product(h1 - k1, again) / counted.sum(),
            "all/net.blocks.1.op.weight": product(h2 - k2, k1) / counted.sum(),
            "all/net.readout.weight": product(second, k2),
        },
    )


def test_pepita_takes_the_mean_over_positions_that_share_an_output():
    trainer = Pepita(values(Pooled()), scale=0.3)
    batch = Batch(padded_values().x, torch.arange(6) % V)
    ((w1, b1), (w2, b2), (wo, bo)), x, *_ = by_hand(trainer.net, padded_values())
    h1 = np.tanh(x @ w1.T + b1)
    h2 = np.tanh(h1 @ w2.T + b2)
    error = softmax(h2.mean(1) @ wo.T + bo) - np.eye(V)[batch.target.numpy()]
    again = x + (error @ trainer.feedback.numpy().T).reshape(x.shape)
    k1 = np.tanh(again @ w1.T + b1)
    assert_close(probes.gradients_of(trainer, batch), {"all/net.blocks.0.op.weight": product(h1 - k1, again) / (6 * T)})


def test_forward_forward_tells_the_tokens_of_each_position_apart():
    """The loss of block 1 from the embeddings of true and wrong tokens, position by position; in NumPy."""
    trainer, batch = ForwardForward(plain(), peer_normalization=0), padded()
    h, _ = trainer.first_input(batch)
    shown, first = trainer._shown, trainer._true_first
    assert shown is not None and first is not None
    one, other = shown.chunk(2)
    counted, target = without_padding(batch)
    assert torch.equal(torch.where(first, one, other)[counted], target)
    assert not (torch.where(first, other, one)[counted] == target).any()
    output, loss, _ = trainer.run_block(0, h, batch)
    embedded = trainer.net.block(0).op(batch.x).detach().numpy()
    assert trainer.tokens is not None
    label = trainer.tokens.weight.detach().numpy()
    losses = []
    for tokens, sign in ((torch.where(first, one, other), -1), (torch.where(first, other, one), 1)):
        goodness = (np.tanh(embedded + label[tokens.numpy()]) ** 2).sum(-1)
        losses.append(np.logaddexp(0, sign * (goodness - D))[counted.numpy()].mean())
    assert loss.item() == pytest.approx(np.mean(losses))
    assert output.shape == (12, T, D)


def test_what_forward_forward_shows_elsewhere_says_nothing_of_a_position():
    """Which of the two passes has the true token is drawn for each position: neighbours agree in half of the cases."""
    trainer = ForwardForward(attentive())
    batch = Batch(torch.zeros(4000, T, dtype=torch.long), torch.ones(4000, T, dtype=torch.long))
    torch.manual_seed(0)
    trainer.first_input(batch)
    first = trainer._true_first
    assert first is not None
    limit = NormalDist().inv_cdf(1 - FALSE_ALARM / 4) * 0.5
    for agree in (first, first[:, 1:] == first[:, :-1]):
        assert abs(agree.double().mean().item() - 0.5) < limit / math.sqrt(agree.numel())


def test_forward_forwards_neutral_token_is_the_mean_embedding():
    trainer, x = ForwardForward(plain()), padded().x
    assert trainer.tokens is not None
    with torch.no_grad():
        z, _ = trainer._through(0, x, ())
        expected = trainer.net.block(0).op(x) + trainer.tokens.weight.mean(0)
    torch.testing.assert_close(z, expected)


@pytest.mark.parametrize("kind", ["values", "tokens"])
def test_forward_forward_classifies_sequences(kind):
    """The label stands in each position's features, or is added as an embedding, of the whole row alike."""
    torch.manual_seed(0)
    if kind == "values":
        blocks = [Block(nn.Linear(3 + V, D), nn.ReLU()), Block(nn.Linear(D, D), nn.ReLU())]
        net = Net(blocks, nn.Linear(D, V), takes=InputSpec((T, 3 + V)), view=Pooled()).double()
    else:
        blocks = [Block(nn.Embedding(V, D), nn.ReLU()), Block(nn.Linear(D, D), nn.ReLU())]
        net = Net(blocks, nn.Linear(D, V), takes=InputSpec((T,), vocabulary=V), view=Pooled()).double()
    x = padded_values().x if kind == "values" else padded().x
    batch = Batch(x, torch.arange(6) % V)
    for prediction in ("softmax", "goodness"):
        trainer = ForwardForward(net, prediction=prediction)
        h, _ = trainer.first_input(batch)
        if kind == "values":
            assert torch.equal(h[:6, :, :3], x) and torch.equal(h[:6, 2, 3:].argmax(-1), batch.target)
        before = trainer.block_loss(0, trainer._through(0, h, (), trainer._shown)[1], batch).item()
        probes.train(trainer, batch, 40, 0.03)
        h, _ = trainer.first_input(batch)
        assert trainer.block_loss(0, trainer._through(0, h, (), trainer._shown)[1], batch).item() < before
        assert probes.scored(trainer, batch).shape == (6, V)


@pytest.mark.parametrize("make", [plain, attentive])
@pytest.mark.parametrize("rule", DETERMINISTIC)
def test_padding_says_nothing(rule, make):
    """Rows that are padding alone change no gradient and no solution, and neither do tokens at padded ends."""
    trainer, batch = rule(make()), padded()
    expected = probes.learned_from(trainer, batch)
    rows = Batch(
        torch.cat([batch.x, torch.zeros(3, T, dtype=torch.long)]),
        torch.cat([batch.target, torch.full((3, T), PADDING)]),
    )
    other = batch.x.clone()
    other[:, -1] = torch.where(batch.target[:, -1] == PADDING, (batch.x[:, -1] + 1) % V, batch.x[:, -1])
    assert not torch.equal(other, batch.x)
    for changed in (rows, Batch(other, batch.target)):
        found = probes.learned_from(trainer, changed)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("rule", [*DETERMINISTIC, *DRAWING])
def test_gradients_taken_block_by_block_are_the_same_bits(rule):
    trainer, batch = rule(attentive()), padded()
    whole = probes.gradients_of(trainer, batch)
    for phase in trainer.phases():
        if hasattr(phase, "by_block") and phase.name in ("all", "all blocks"):
            trainer.zero_grad(set_to_none=True)
            torch.manual_seed(0)
            probes.completed(phase.by_block(batch))
            found = {f"{phase.name}/{n}": p.grad for n, p in trainer.named_parameters() if p.grad is not None}
            assert found and not probes.differing(whole, found)


def test_paths_that_are_the_weights_are_backprop_through_attention():
    trainer, batch = FeedbackAlignment(attentive()), padded()
    names = [name for name, _ in trainer.named_paths()]
    assert names == [f"blocks.{n}.weight" for n in ("1.op.mix", "1.op.out", "2.op")] + ["readout.weight"]
    for name, path in trainer.named_paths():
        path.get_buffer("feedback").copy_(trainer.net.get_parameter(name).detach())
    found, true = probes.gradients_of(trainer, batch), probes.gradients_of(Backprop(trainer.net), batch)
    for name, value in true.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)


class Scaled(nn.Module):
    """A matrix that is merely looked up or added, or one that is multiplied, if only a part of it."""

    def __init__(self, how):
        super().__init__()
        self.how, self.table = how, nn.Parameter(torch.randn(T, D))

    def forward(self, h):
        return {
            "added": lambda: h + self.table,
            "in front": lambda: torch.cat([self.table[:1].expand(len(h), 1, D), h], dim=1)[:, :T],
            "multiplied": lambda: h * self.table,
            "a part multiplied": lambda: h + self.table * h.mean() + self.table,
            "unused": lambda: h,
        }[self.how]()


@pytest.mark.parametrize(
    ("how", "refused"),
    [("added", False), ("in front", False), ("multiplied", True), ("a part multiplied", True), ("unused", True)],
)
def test_what_is_added_needs_no_path_back(how, refused):
    blocks = [Block(nn.Linear(3, D)), Block(Scaled(how)), Block(nn.Linear(D, D))]
    net = Net(blocks, nn.Linear(D, V), takes=InputSpec((T, 3)), view=PerPosition())
    assert unmapped_matrices(net, linear_maps(net)) == (["blocks.1.op.table"] if refused else [])


def test_a_net_of_embeddings_has_paths_around_all_else():
    net = attentive()
    assert not unmapped_matrices(net, linear_maps(net))


@pytest.mark.parametrize("space", ["weight", "activity"])
def test_forward_gradients_are_unbiased_through_attention(space):
    """Projections on random directions of 400 means of 16 tangents have backprop's as their mean."""
    net, batch = attentive(), padded()
    true = probes.gradients_of(Backprop(net), batch)
    trainer = ForwardGradient(net, space=space, tangents=16, guess="noise")
    names = [name for name in true if "readout" not in name]
    generator = torch.Generator().manual_seed(5)
    size = sum(true[name].numel() for name in names)
    directions = torch.randn(10, size, generator=generator, dtype=torch.float64)

    def projected(gradients):
        return directions @ torch.cat([gradients[name].flatten() for name in names])

    found = torch.stack([projected(probes.gradients_of(trainer, batch, seed=seed)) for seed in range(400)])
    score = (found.mean(0) - projected(true)) / (found.std(0) / math.sqrt(len(found)))
    assert score.abs().max() < NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / len(directions))


def test_likelihood_ratio_is_unbiased_through_attention():
    """Its mean is the gradient of the loss under the noise, which many noisy backward passes estimate as well."""
    sigma, net, batch = 0.3, attentive(), padded(2)
    trainer = LikelihoodRatio(net, sigma=sigma, copies=64)
    names = [f"all/net.blocks.{n}" for n in ("0.op.tokens.weight", "1.op.mix.weight", "2.op.weight")]
    generator = torch.Generator().manual_seed(5)
    sizes = [probes.gradients_of(trainer, batch)[name].numel() for name in names]
    directions = torch.randn(10, sum(sizes), generator=generator, dtype=torch.float64)

    def projected(gradients):
        return directions @ torch.cat([gradients[name].flatten() for name in names])

    def smoothed(seed):
        torch.manual_seed(seed)
        h = batch.x.repeat(64, 1)
        for k in range(net.depth):
            z = net.block(k).op(h)
            h = net.block(k).post(z + sigma * torch.randn_like(z))
        net.zero_grad(set_to_none=True)
        net.task.loss(net.logits(h), Batch(h, batch.target.repeat(64, 1))).backward()
        return projected({f"all/net.{name}": p.grad for name, p in net.named_parameters()})

    one = torch.stack([projected(probes.gradients_of(trainer, batch, seed=seed)) for seed in range(300)])
    other = torch.stack([smoothed(seed) for seed in range(60)])
    error = (one.var(0) / len(one) + other.var(0) / len(other)).sqrt()
    score = (one.mean(0) - other.mean(0)) / error
    assert score.abs().max() < NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / len(directions))


def test_the_losses_of_rows_have_the_tasks_mean():
    task, batch = LanguageModelling(V), padded()
    output = torch.randn(3, 6, T, V, dtype=torch.float64)
    rows = task.row_losses(output, batch.target)
    assert rows.shape == (3, 6)
    for one, mean in zip(output, rows.mean(1), strict=True):
        torch.testing.assert_close(mean, task.loss(one, batch))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Pepita(plain()), "takes token ids, .*; use algo=direct_feedback_alignment or mono_forward"),
        (lambda: Pepita(attentive(Pooled())), "takes token ids"),
        (lambda: MonoForward(plain(), input_projection=True), "use input_projection=false"),
        (lambda: ForwardForward(plain(), prediction="goodness"), "use prediction=softmax"),
        (lambda: ForwardForward(values()), "build it for 5 more"),
        (lambda: Pepita(values(Pooled()), mirror=True), "use mirror=false"),
    ],
)
def test_what_is_refused_says_what_would_work(make, told):
    with pytest.raises((Unsupported, UserError), match=told):
        make()


def test_the_input_projection_reads_each_position():
    trainer, batch = MonoForward(values(), input_projection=True, prediction="ff"), padded_values()
    assert trainer.input_projection is not None and trainer.input_projection.in_features == 3
    assert "loss_0" in probes.completed(trainer.gradients(batch))
    assert trainer.predict(batch.x).shape == (6, T, V)


def test_forward_forward_on_token_ids_cannot_be_trained_by_blocks_on_different_processes():
    net = localearn.Transformer((6,), 3, vocabulary=7, layers=2, width=8, heads=2, reads="pooled")
    trainer = ForwardForward(net, prediction="goodness", negatives="uniform")
    with pytest.raises(UserError, match="draws it for all blocks, so they cannot learn alone; use parallel=data"):
        trainer.pipelined()
