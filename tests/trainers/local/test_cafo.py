import copy
import json
import math
import os
import signal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import nn

from localearn import CNN, GNN, MLP, Block, CaFo, Callback, Net, Unsupported, UserError, fit
from localearn.data import ArrayData, Batch, GraphData
from localearn.data.base import Split
from localearn.testing.probes import learn
from localearn.trainers import DirectFeedbackAlignment, Solve
from localearn.trainers.local import cafo

CLASSES = 3
QUIET = {"device": "cpu", "idle_s": 0.0}


def vectors(rows=96, n=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(rows) % CLASSES
    centres = 4 * torch.randn(CLASSES, n, generator=generator)
    return (centres[y] + torch.randn(rows, n, generator=generator)).to(dtype), y


def data_of(kind, dtype=torch.float32):
    if kind == "cnn":
        x, y = vectors(96, 64)
        x = x.view(-1, 1, 8, 8).to(dtype)
    else:
        x, y = vectors(dtype=dtype)
    if kind == "gnn":
        node = torch.arange(len(x))
        edges = torch.stack([node, (node + CLASSES) % len(x)])
        return GraphData("ring", x, edges, y, {"train": node[::2], "val": node[1::4], "test": node[3::4]}, CLASSES)
    splits: dict[Split, slice] = {"train": slice(0, 60), "val": slice(60, 78), "test": slice(78, 96)}
    return ArrayData(kind, {s: x[i] for s, i in splits.items()}, {s: y[i] for s, i in splits.items()}, CLASSES)


def net_of(kind, seed=0):
    torch.manual_seed(seed)
    if kind == "mlp":
        return MLP(6, CLASSES, widths=(10, 8))
    if kind == "cnn":
        return CNN((1, 8, 8), CLASSES, channels=(3, 4), order="norm_last")
    return GNN(6, CLASSES, widths=(8, 8), conv="gcn")


def train_batch(kind, dtype=torch.float32):
    return next(data_of(kind, dtype).batches("train", 1000))


@pytest.mark.parametrize("kind", ["mlp", "cnn", "gnn"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("options", [{}, {"loss": "ce"}, {"loss": "sparsemax", "blocks": "dfa"}, {"blocks": "dfa"}])
def test_it_learns_on_every_kind_of_net(kind, precision, options):
    optim = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731 - a factory is wanted
    record = fit(CaFo(net_of(kind), **options), data_of(kind), epochs=15, optim=optim, precision=precision, **QUIET)
    assert record.status == "completed"
    assert record.test_accuracy is not None and record.test_accuracy > 0.8


@pytest.mark.parametrize("kind", ["mlp", "gnn"])
def test_the_closed_form_is_the_ridge_solution_on_every_blocks_features(kind):
    trainer, data = CaFo(net_of(kind).double(), ridge=0.05), data_of(kind, torch.float64)
    record = fit(trainer, data, batch_size=7, **QUIET)
    batch = train_batch(kind, torch.float64)
    trainer.eval()
    with torch.no_grad():
        features = [batch.rows(h).numpy() for h in trainer.net.outputs(batch.x, *batch.context)]
    for k, h in enumerate(features):
        y = np.eye(CLASSES)[batch.y.numpy()]
        reference = Ridge(alpha=0.05 * len(h) * (h**2).mean(), solver="svd").fit(h, y)
        np.testing.assert_allclose(trainer.predictor(k).weight.detach().numpy(), reference.coef_, rtol=1e-7, atol=1e-10)
        np.testing.assert_allclose(trainer.predictor(k).bias.detach().numpy(), reference.intercept_, rtol=1e-7)
        error = ((reference.predict(h) - y) ** 2).sum(1).mean()
        assert record.history[k]["train_loss"] == pytest.approx(error, rel=1e-6)  # metrics are read in float32


def test_a_one_pass_stage_is_a_line_of_metrics_a_pass_and_a_validation():
    record = fit(CaFo(net_of("cnn")), data_of("cnn"), epochs=9, batch_size=16, **QUIET)
    assert [line["passes"] for line in record.history] == [1, 2, 3]
    assert [line["stage"] for line in record.history] == [0, 1, 2]
    assert all(line["lr"] is None and line["train_s"] > 0 for line in record.history)
    assert record.passes == record.stages == 3
    assert record.history[0]["train_loss"] == pytest.approx(math.log(CLASSES))
    assert record.history[0]["val_loss"] == pytest.approx(math.log(CLASSES))
    assert record.history[2]["val_accuracy"] > 0.8


def test_no_features_are_kept_for_a_closed_form(monkeypatch):
    kept = []
    monkeypatch.setattr(ArrayData, "features", lambda self, name, *_: kept.append(name) or self)
    fit(CaFo(net_of("mlp")), data_of("mlp"), **QUIET)
    assert kept == []


@pytest.mark.parametrize("loss", ["mse", "ce", "sparsemax"])
@pytest.mark.parametrize("solver", [None, "gradient"])
def test_predictors_do_not_touch_random_blocks(loss, solver):
    net = net_of("cnn")
    before = copy.deepcopy(net.blocks)
    fit(CaFo(net, loss=loss, solver=solver), data_of("cnn"), epochs=2, batch_size=16, **QUIET)
    assert not net.get_parameter("readout.weight").eq(0).all()
    for (name, p), (_, old) in zip(net.blocks.named_parameters(), before.named_parameters(), strict=True):
        assert torch.equal(p, old), name


@pytest.mark.parametrize("loss", ["mse", "ce", "sparsemax"])
def test_predictors_follow_the_papers_gradient_descent(loss):
    """W <- W - step mean_i h_i^T J_i from zero, J = 2 (o - Y), softmax(o) - Y or sparsemax(o) - Y, in NumPy."""
    trainer, batch = CaFo(net_of("mlp").double(), loss=loss, solver="gradient"), train_batch("mlp", torch.float64)
    y = np.eye(CLASSES)[batch.y.numpy()]

    def softmax(o):
        e = np.exp(o - o.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def nearest_distribution(o):
        low, high = o.max(1, keepdims=True) - 1, o.max(1, keepdims=True)
        for _ in range(100):
            tau = (low + high) / 2
            over = np.maximum(o - tau, 0).sum(1, keepdims=True) > 1
            low, high = np.where(over, tau, low), np.where(over, high, tau)
        return np.maximum(o - tau, 0)

    error = {
        "mse": lambda o: 2 * (o - y),
        "ce": lambda o: softmax(o) - y,
        "sparsemax": lambda o: nearest_distribution(o) - y,
    }[loss]
    h = batch.x.numpy()
    for k in range(2):
        drawn = [trainer.get_parameter(f"net.blocks.{k}.op.{name}").detach().numpy() for name in ("weight", "bias")]
        h = np.maximum(h @ drawn[0].T + drawn[1], 0)
        weight, bias = np.zeros((CLASSES, h.shape[1])), np.zeros(CLASSES)
        phase = trainer.phases()[k]
        optimizer = torch.optim.SGD(phase.parameters, lr=0.05)
        x = phase.input(batch.x).detach()
        for _ in range(6):
            jacobian = error(h @ weight.T + bias)
            weight, bias = weight - 0.05 * jacobian.T @ h / len(h), bias - 0.05 * jacobian.mean(0)
            optimizer.zero_grad()
            learn(phase, Batch(x, batch.y))
            optimizer.step()
        np.testing.assert_allclose(trainer.predictor(k).weight.detach().numpy(), weight, atol=1e-10)
        np.testing.assert_allclose(trainer.predictor(k).bias.detach().numpy(), bias, atol=1e-10)


def test_dfa_trains_the_blocks_by_its_own_gradient():
    net = net_of("cnn").double()
    trainer, batch = CaFo(net, blocks="dfa", loss="ce"), train_batch("cnn", torch.float64)
    alone = copy.deepcopy(net)
    reference = DirectFeedbackAlignment(alone, scale="width")
    reference.feedback.copy_(trainer.get_buffer("dfa.feedback"))
    trainer.train()
    for rule in (trainer, reference):
        phase = rule.phases()[0]
        optimizer = torch.optim.SGD(phase.parameters, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            learn(phase, batch)
            optimizer.step()
    for (name, one), other in zip(net.state_dict().items(), alone.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    name = "blocks.0.op.weight"
    assert not torch.equal(net.get_parameter(name), net_of("cnn").double().get_parameter(name))


@pytest.mark.parametrize("loss", ["mse", "ce"])
def test_dfa_blocks_stay_as_their_stage_left_them(loss):
    seen = []

    class Spy(Callback):
        def phase_started(self, context):
            seen.append(copy.deepcopy(context.net.blocks))

    trainer = CaFo(net_of("cnn"), blocks="dfa", loss=loss)
    record = fit(trainer, data_of("cnn"), epochs=3, batch_size=16, callbacks=[Spy()], **QUIET)
    assert record.passes == (5 if loss == "mse" else 9)
    drawn, trained = seen[0].state_dict(), seen[1].state_dict()
    assert not any(torch.equal(drawn[n], trained[n]) for n in drawn if n.endswith("op.weight"))
    for name, value in trainer.net.blocks.state_dict().items():
        assert torch.equal(value, trained[name]), name


def test_a_net_that_dfa_trains_is_saved_once():
    trainer = CaFo(net_of("cnn"), blocks="dfa")
    names = [name for name in trainer.state_dict() if name.partition(".")[0] in ("net", "dfa")]
    assert names == [*(f"net.{name}" for name in trainer.net.state_dict()), "dfa.feedback"]
    outer = torch.nn.ModuleDict({"rule": CaFo(net_of("cnn"), blocks="dfa")})
    outer.load_state_dict({f"rule.{name}": value + 1 for name, value in trainer.state_dict().items()})
    for name, value in outer["rule"].state_dict().items():
        assert torch.equal(value, trainer.state_dict()[name] + 1), name


@pytest.mark.parametrize("call", [3, 6])
def test_a_checkpoint_that_has_the_net_twice_is_gone_on_with(call, tmp_path):
    """As version 0.1.0 wrote it, in the midst of the blocks' first epoch and after one with the best weights kept."""
    settings = {"epochs": 3, "batch_size": 16, **QUIET}
    whole = CaFo(net_of("cnn"), blocks="dfa")
    fit(whole, data_of("cnn"), **settings)
    older = CaFo(net_of("cnn"), blocks="dfa")
    older._state_dict_hooks.clear()
    assert "dfa.net.readout.weight" in older.state_dict()
    signals = [SignalAfter("gradients", call)]
    assert fit(older, data_of("cnn"), out=tmp_path, callbacks=signals, **settings).status == "interrupted"
    trainer = CaFo(net_of("cnn"), blocks="dfa")
    assert fit(trainer, data_of("cnn"), out=tmp_path, resume=True, **settings).status == "completed"
    for name, value in whole.state_dict().items():
        assert torch.equal(trainer.state_dict()[name], value), name


def test_a_graph_of_a_predictor_ends_at_its_features():
    trainer, batch = CaFo(net_of("mlp"), loss="ce"), train_batch("mlp")
    phase = trainer.phases()[0]
    learn(phase, Batch(phase.input(batch.x), batch.y))
    assert all(p.grad is not None for p in trainer.predictor(0).parameters())
    assert all(p.grad is None for p in trainer.net.parameters())


@pytest.mark.parametrize("combine", ["sum", "average"])
def test_the_prediction_adds_probabilities(combine):
    trainer, batch = CaFo(net_of("gnn"), combine=combine), train_batch("gnn")
    for p in trainer.parameters():
        nn.init.normal_(p)
    trainer.eval()
    with torch.no_grad():
        h = trainer.net.outputs(batch.x, *batch.context)
        probabilities = torch.stack([F.softmax(trainer.predictor(k)(h_k), 1) for k, h_k in enumerate(h)]).sum(0)
        scores = trainer.predict(batch.x, *batch.context)
    expected = probabilities / 2 if combine == "average" else probabilities
    torch.testing.assert_close(scores.exp(), expected)
    loss = F.cross_entropy(batch.rows(scores), batch.y)
    of_the_mean = -batch.rows(probabilities / 2)[torch.arange(len(batch.y)), batch.y].log().mean()
    torch.testing.assert_close(loss, of_the_mean)


def test_the_net_alone_predicts_as_its_last_predictor():
    trainer, batch = CaFo(net_of("mlp")), train_batch("mlp")
    fit(trainer, data_of("mlp"), **QUIET)
    last = trainer.phases()[1]
    assert torch.equal(trainer.net(batch.x), last.predict(last.input(batch.x)))


class SignalAfter(Callback):
    """Lets a signal come after a number of batches that one-pass phases, or the others, have taken."""

    def __init__(self, method, call):
        self.one_pass, self.left = method == "accumulate", call

    def step_ended(self, context):
        self.left -= isinstance(context.phase, Solve) == self.one_pass
        if self.left == 0:
            self.left = -1
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("options", "method", "call"),
    [
        ({}, "accumulate", 2),  # in the statistics, with no checkpoint yet
        ({}, "accumulate", 6),  # in the first predictor
        ({}, "accumulate", 8),  # at its last batch
        ({"loss": "ce"}, "gradients", 10),
        ({"blocks": "dfa"}, "gradients", 6),
        ({"blocks": "dfa"}, "accumulate", 5),
    ],
)
def test_a_run_stopped_in_a_stage_goes_on_to_the_same_weights(options, method, call, tmp_path):
    settings = {"epochs": 3, "batch_size": 16, **QUIET}
    whole = CaFo(net_of("cnn"), **options)
    record = fit(whole, data_of("cnn"), out=tmp_path / "whole", **settings)
    signals, out = [SignalAfter(method, call)], tmp_path / "part"
    part = fit(CaFo(net_of("cnn"), **options), data_of("cnn"), out=out, callbacks=signals, **settings)
    assert part.status == "interrupted"
    trainer = CaFo(net_of("cnn"), **options)
    resumed = fit(trainer, data_of("cnn"), out=tmp_path / "part", resume=True, **settings)
    assert resumed.status == "completed"
    for name, value in whole.state_dict().items():
        assert torch.equal(trainer.state_dict()[name], value), name
    assert resumed.test_accuracy == record.test_accuracy
    for one, other in zip(resumed.history, record.history, strict=True):
        same = ("stage", "epoch", "passes", "train_loss", "val_loss", "val_accuracy", "lr")
        assert [one[name] for name in same] == [other[name] for name in same]
    lines = (tmp_path / "part" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["passes"] for line in lines] == [line["passes"] for line in record.history]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "ce", "solver": "closed_form"}, "no closed form; use solver=gradient"),
        ({"loss": "sparsemax", "solver": "closed_form"}, "no closed form; use solver=gradient"),
        ({"ridge": 0.0}, "ridge must be positive"),
        ({"ridge": -1.0}, "ridge must be positive"),
        ({"ridge": math.nan}, "ridge must be a number"),
        ({"loss": "cross_entropy"}, "loss must be mse, ce or sparsemax, not 'cross_entropy'"),
        ({"blocks": "trained"}, "blocks must be random or dfa"),
        ({"solver": "cholesky"}, "solver must be closed_form or gradient"),
        ({"combine": "vote"}, "combine must be sum or average"),
    ],
)
def test_contradicting_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        CaFo(net_of("mlp"), **options)


def test_a_block_too_wide_for_the_closed_form_is_refused(monkeypatch):
    monkeypatch.setattr(cafo, "LARGEST_WIDTH", 9)
    with pytest.raises(Unsupported, match=r"MLP has 10 outputs.*9 at most.*solver=gradient"):
        CaFo(net_of("mlp"))
    CaFo(net_of("mlp"), solver="gradient")


def test_a_frozen_readout_is_refused():
    net = net_of("mlp")
    net.readout.requires_grad_(False)
    with pytest.raises(Unsupported, match="the readout, which is frozen"):
        CaFo(net)


def test_a_readout_that_is_no_linear_layer_is_refused():
    readout = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    with pytest.raises(Unsupported, match="Net has a Sequential"):
        CaFo(Net([Block(nn.Linear(6, 4))], readout, input_shape=(6,)))


def test_all_predictors_at_once_follow_what_each_follows_alone():
    trainer, batch = CaFo(net_of("cnn"), loss="ce"), train_batch("cnn")
    for p in trainer.parameters():
        nn.init.normal_(p, std=0.1)
    losses = [learn(phase, Batch(phase.input(batch.x), batch.y))["loss"] for phase in trainer.phases()[1:]]
    alone = [p.grad for p in (*trainer.predictors.parameters(), *trainer.net.readout.parameters())]
    trainer.zero_grad(set_to_none=True)
    metrics = trainer.gradients(batch)
    torch.testing.assert_close(metrics["loss"], sum(losses))
    for p, expected in zip((*trainer.predictors.parameters(), *trainer.net.readout.parameters()), alone, strict=True):
        assert p.grad is not None and expected is not None and torch.equal(p.grad, expected)


def test_settings_of_steps_leave_a_closed_form_alone():
    weights = []
    for options in ({}, {"epochs": 7, "clip_norm": 1e-3, "patience": 1, "monitor": "val_loss"}):
        trainer = CaFo(net_of("mlp"))
        fit(trainer, data_of("mlp"), **options, **QUIET)
        weights.append(trainer.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_predictors_of_other_losses_are_trained_on_features_computed_once():
    """An epoch is a linear map: the blocks are run for the features and for the final scores, not for each epoch."""
    runs = {}
    for epochs in (1, 6):
        net, calls = net_of("mlp"), []
        net.block(0).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        fit(CaFo(net, loss="ce"), data_of("mlp"), epochs=epochs, batch_size=16, **QUIET)
        runs[epochs] = len(calls)
    assert runs[1] == runs[6]
