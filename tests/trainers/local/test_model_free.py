"""Model-free Forward-Forward against NumPy, and that no derivative of a system is ever asked for."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from localearn import (
    MLP,
    Backprop,
    ForwardGradient,
    ModelFree,
    MonoForward,
    Physical,
    Regression,
    Unsupported,
    UserError,
    load,
    load_net,
)
from localearn.data import Batch, from_arrays
from localearn.export import export
from localearn.nets import Opaque
from localearn.nets.physical import SYSTEMS
from localearn.training.early_stopping import EarlyStopping

N, C, INPUTS, WIDTHS, MODES = 7, 3, 8, (5, 4), 6
THETA, SCALE = 3.0, 0.7


def batch(rows=N):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, INPUTS, generator=generator, dtype=torch.float64)
    return Batch(x, torch.randint(0, C, (rows,), generator=generator))


def made(loss: Any = "cosine", threshold=None, **options):
    torch.manual_seed(0)
    net = Physical(INPUTS, C, widths=WIDTHS, modes=MODES, **options)
    return ModelFree(net, loss, theta=THETA, threshold=threshold, label_scale=SCALE).double()


def linear(rule, k) -> nn.Linear:
    found = rule.net.block(k).op.linear
    assert isinstance(found, nn.Linear)
    return found


def gradient(parameter) -> np.ndarray:
    assert parameter.grad is not None
    return parameter.grad.numpy()


def softplus(a):
    return np.log1p(np.exp(a))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def optics(transmission, u):
    intensity = np.abs(u @ (transmission[0] + 1j * transmission[1]).T) ** 2
    return intensity / (1 + intensity / 4)


def driven(h):
    return h / (np.sqrt((h**2).mean(1, keepdims=True)) + 1e-8)


def shown(x, labels):
    """Return rows with their label, as long as the row, written over the first C entries."""
    one_hot = np.eye(C)[labels] * SCALE * np.sqrt((x**2).sum(1, keepdims=True))
    return np.concatenate([one_hot, x[:, C:]], axis=1)


def updates(trainer, of, wrong, threshold):
    """Return each block's loss and its gradients of W and b, from the equations."""
    values = {name: value.detach().numpy() for name, value in trainer.state_dict().items()}
    x, y = of.x.numpy(), of.target.numpy()
    h = np.concatenate([shown(x, y), shown(x, wrong)])
    for k, n in enumerate(WIDTHS):
        name = f"net.blocks.{k}.op"
        a = optics(values[f"{name}.system.system.coupling"], driven(h))
        h = a @ values[f"{name}.linear.weight"].T + values[f"{name}.linear.bias"]
        if trainer.loss == "squares":
            t = n if threshold is None else threshold
            g = (h**2).sum(1)
            loss = (softplus(t - g[:N]).mean() + softplus(g[N:] - t).mean()) / 2
            of_g = np.concatenate([-sigmoid(t - g[:N]), sigmoid(g[N:] - t)]) / (2 * N)
            of_h = of_g[:, None] * 2 * h
        else:
            p = values[f"target_{k + 1}"]
            length = np.sqrt((h**2).sum(1))
            g = np.abs(h) @ p / (length * np.sqrt((p**2).sum()))
            loss = softplus(-THETA * (g[:N] - g[N:])).mean()
            slope = -THETA * sigmoid(-THETA * (g[:N] - g[N:])) / N
            of_g = np.concatenate([slope, -slope])
            of_abs = p / (length[:, None] * np.sqrt((p**2).sum())) - (g / length**2)[:, None] * np.abs(h)
            of_h = of_g[:, None] * np.sign(h) * of_abs
        yield loss, of_h.T @ a, of_h.sum(0)


@pytest.mark.parametrize(("loss", "threshold"), [("cosine", None), ("squares", None), ("squares", 1.5)])
def test_one_update_is_that_of_the_equations(loss, threshold):
    trainer, of = made(loss, threshold), batch()
    torch.manual_seed(5)
    wrong = (of.target + torch.randint_like(of.target, 1, C)) % C
    torch.manual_seed(5)
    told = trainer.gradients(of)
    expected = list(updates(trainer, of, wrong.numpy(), threshold))
    for k, (value, of_weight, of_bias) in enumerate(expected):
        assert told[f"loss_{k + 1}"].item() == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(gradient(linear(trainer, k).weight), of_weight, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(gradient(linear(trainer, k).bias), of_bias, rtol=1e-9, atol=1e-12)
    assert told["loss"].item() == pytest.approx(sum(value for value, *_ in expected), rel=1e-12)
    assert trainer.net.readout.weight.grad is None


@pytest.mark.parametrize("loss", ["cosine", "squares"])
def test_a_label_has_the_goodness_of_all_blocks(loss):
    trainer, of = made(loss), batch()
    values = {name: value.detach().numpy() for name, value in trainer.state_dict().items()}
    scores = np.zeros((N, C))
    for label in range(C):
        h = shown(of.x.numpy(), np.full(N, label))
        for k, n in enumerate(WIDTHS):
            name = f"net.blocks.{k}.op"
            a = optics(values[f"{name}.system.system.coupling"], driven(h))
            h = a @ values[f"{name}.linear.weight"].T + values[f"{name}.linear.bias"]
            if loss == "squares":
                scores[:, label] += (h**2).sum(1) / n
            else:
                p = values[f"target_{k + 1}"]
                scores[:, label] += THETA * np.abs(h) @ p / np.sqrt((h**2).sum(1) * (p**2).sum())
    np.testing.assert_allclose(trainer.predict(of.x).detach(), scores, rtol=1e-8)


class Instrument:
    """A system that NumPy computes; it refuses what autograd follows, and counts what it was asked."""

    def __init__(self, fails_at=None, how=None):
        self.rows = self.calls = 0
        self.fails_at, self.how = fails_at, how
        self.couplings = {}

    def __call__(self, u):
        assert not u.requires_grad and u.grad_fn is None and not torch.is_grad_enabled()
        self.calls, self.rows = self.calls + 1, self.rows + len(u)
        drive = np.asarray(u)
        n = drive.shape[1]
        matrix = self.couplings.setdefault(n, np.random.default_rng(n).normal(size=(n, MODES)) / n**0.5)
        y = (drive @ matrix) ** 2
        failing = self.fails_at is not None and self.calls > self.fails_at
        return self.how(y) if self.how and failing else y


@pytest.mark.parametrize("loss", ["cosine", "squares"])
def test_no_derivative_of_a_system_is_asked_for(loss):
    """Answers are NumPy's, through which autograd cannot run; each training row costs two of each block."""
    system = Instrument()
    trainer = made(loss, system=system)
    system.rows = 0
    before = {name: p.detach().clone() for name, p in trainer.named_parameters()}
    adam = torch.optim.Adam([p for phase in trainer.phases() for p in phase.parameters], lr=0.01)
    trainer.gradients(batch())
    adam.step()
    assert system.rows == 2 * N * len(WIDTHS)
    moved = {name for name, p in trainer.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"net.blocks.{k}.op.linear.{name}" for k in range(2) for name in ("weight", "bias")}


@pytest.mark.parametrize("rule", [Backprop, ForwardGradient])
def test_a_rule_that_asks_for_one_is_told(rule):
    with pytest.raises(UserError, match=r"block [12]'s system \(Optics\) has no derivative .*use algo=model_free"):
        rule(Physical(INPUTS, C, widths=WIDTHS)).gradients(Batch(batch().x.float(), batch().target))


def test_a_rule_whose_blocks_learn_alone_needs_none():
    rule = MonoForward(Physical(INPUTS, C, widths=WIDTHS, system=Instrument())).double()
    rule.gradients(batch())
    assert all(gradient(linear(rule, k).weight).any() for k in range(2))


def raises(y):
    raise OSError("no signal")


def hangs(y):
    time.sleep(1)
    return y


FAILURES = {
    "raises": (raises, r"block 2's system \(Instrument\) failed: OSError: no signal"),
    "nan": (lambda y: y * np.nan, r"block 2's system \(Instrument\) answers with values that are not finite"),
    "shape": (
        lambda y: y[:, 1:],
        r"block 2's system \(Instrument\) answers rows \(14, 5\) with \(14, 5\), not \(14, 6",
    ),
    "rows": (lambda y: y[1:], r"block 2's system \(Instrument\) answers rows \(14, 5\) with \(13, 6\), not \(14, 6"),
    "words": (lambda y: "none", r"block 2's system \(Instrument\) returned a str"),
    "hangs": (hangs, r"block 2's system \(Instrument\) has not answered in 0.1 s"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_system_that_fails_is_named(failure):
    how, told = FAILURES[failure]
    systems = [Instrument(), Instrument()]
    trainer = made(system=systems, timeout_s=0.1 if failure == "hangs" else None)
    systems[1].fails_at, systems[1].how = systems[1].calls, how
    with pytest.raises(UserError, match=told):
        trainer.gradients(batch())


def test_a_run_goes_on_once_the_system_is_mended(tmp_path):
    """It fails in the third epoch; what goes on from the checkpoint ends where a run without a failure does."""

    def run(system, **options):
        torch.manual_seed(0)
        net = Physical(5 + 2, 2, widths=(4,), system=system)
        return ModelFree(net).fit(data, epochs=4, batch_size=20, energy=False, progress=False, **options)

    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    data = from_arrays(x, (x[:, 0] > 0).long())
    whole, failing = Instrument(), Instrument(how=raises)
    expected = run(whole, out=tmp_path / "whole")
    failing.fails_at = whole.calls * 6 // 10
    with pytest.raises(UserError, match=r"block 1's system \(Instrument\) failed"):
        run(failing, out=tmp_path / "run")
    failing.fails_at = None
    mended = run(failing, out=tmp_path / "run", resume=True)
    assert mended.status == expected.status == "completed"
    same = ("epoch", "train_loss", "val_loss", "val_accuracy")
    assert len(mended.history) == 4
    assert [[line[n] for n in same] for line in mended.history] == [
        [line[n] for n in same] for line in expected.history
    ]
    assert mended.test_loss == expected.test_loss


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_simulated_system_learns_the_digits(system):
    """A fraction of them and a few epochs: 10 % is chance."""
    torch.manual_seed(0)
    rule = ModelFree(Physical((1, 8, 8), 10, widths=(64, 64), system=system))
    record = rule.fit(load("digits", train_size=600), epochs=8, batch_size=50, energy=False, progress=False)
    assert record.test_accuracy is not None and record.test_accuracy > 0.75


def test_in_time_an_answer_is_the_same():
    at_once, timed = made(system=Instrument()), made(system=Instrument(), timeout_s=30.0)
    assert torch.equal(at_once.predict(batch().x), timed.predict(batch().x))
    with pytest.raises(UserError, match="failed: OSError"):
        Opaque(raises, timeout_s=30.0)(batch().x)


def test_a_drifted_system_is_not_put_back_with_the_best_weights():
    torch.manual_seed(0)
    stopping = EarlyStopping("val_loss", None, 0.0, keep=True)
    rule = made(drift_rate=0.2)
    stopping.update({"val_loss": 1.0}, 1, rule)
    best = {name: value.clone() for name, value in rule.state_dict().items()}
    rule.train()
    rule.gradients(batch())
    with torch.no_grad():
        linear(rule, 0).weight.add_(1)
    drifted = {name: value.clone() for name, value in rule.state_dict().items() if name.endswith("coupling")}
    stopping.restore(rule)
    for name, value in rule.state_dict().items():
        assert torch.equal(value, drifted.get(name, best[name]))
    assert drifted and not any(torch.equal(value, best[name]) for name, value in drifted.items())


class Failing(nn.Module):
    """A system of torch's that answers with what is not finite from a call on."""

    def __init__(self, calls):
        super().__init__()
        self.left = calls

    def forward(self, u):
        self.left -= 1
        return u.square() / (self.left > 0)


def test_an_answer_that_is_not_waited_for_is_told_at_the_end_of_the_epoch(tmp_path):
    """As one on a GPU is: with the place that it comes from, and not as a loss that asks for a smaller step."""

    def run(calls, **options):
        torch.manual_seed(0)
        net = Physical(5 + 2, 2, widths=(4,), system=Failing(calls))
        opaque: Any = net.block(0).op.system
        opaque.waits = False
        return ModelFree(net).fit(data, epochs=3, batch_size=20, energy=False, progress=False, **options)

    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    data = from_arrays(x, (x[:, 0] > 0).long())
    whole = run(10**6)
    with pytest.raises(UserError, match=r"block 1's system \(Failing\) answers with values that are not finite"):
        run(9, out=tmp_path)  # two of the net's building, and some of the second epoch
    mended = run(10**6, out=tmp_path, resume=True)
    assert [line["val_loss"] for line in mended.history] == [line["val_loss"] for line in whole.history]


def test_whoever_wants_to_wait_for_each_answer_is_told_at_once():
    with pytest.raises(UserError, match="not finite"):
        Opaque(Failing(0), waits=True)(batch().x)
    opaque = Opaque(Failing(0), waits=False)
    opaque(batch().x)
    with pytest.raises(UserError, match="not finite"):
        opaque.eval()
    opaque.eval()  # told once


def test_a_net_of_ones_own_systems_is_read_with_them_given_again(tmp_path):
    def built(system):
        return Physical(INPUTS, 2, widths=(4,), system=system, modes=MODES)

    x = torch.randn(60, INPUTS - 2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = built(Instrument())
    ModelFree(net).fit((x, (x[:, 0] > 0).long()), epochs=1, energy=False, progress=False, out=tmp_path)
    loaded = load_net(tmp_path, net=built(Instrument()))
    h = batch().x.float()
    assert torch.equal(loaded(h), net.eval()(h))
    with pytest.raises(UserError, match=r"does not say how its net was built; .* load_net\(folder, net=\.\.\.\)"):
        load_net(tmp_path)
    with pytest.raises(UserError, match=r"it lacks the tensor .*coupling"):
        load_net(tmp_path, net=built("optics"))
    with pytest.raises(UserError, match="is not a torch function, so it cannot be exported"):
        export(tmp_path, "torch_export", tmp_path / "net.pt2", net=built(Instrument()))
    assert not (tmp_path / "net.pt2").exists()


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: ModelFree(MLP(8, 3, widths=(4,))), "MLP's blocks are none; use net=physical .* algo=mono_forward"),
        (lambda: ModelFree(Physical(3, 3)), "writes 3 labels into the input, and Physical takes 3"),
        (lambda: ModelFree(Physical(8, 3).group(2)), "with net.group=1"),
        (lambda: ModelFree(Physical(8, 1).for_task(Regression())), "Regression, which has none; use algo="),
        (lambda: Physical(8, 3, system="optic"), "did you mean 'optics'"),
        (lambda: Physical(8, 3, system=[Instrument()]), "2 blocks, and there are 1 systems"),
        (lambda: Physical(8, 3, drift=2.0), "drift must lie in"),
        (lambda: Physical(8, 3, drift_rate=1.5), "drift_rate must lie in"),
        (lambda: Physical(8, 3, noise=-1.0), "noise must be 0 or more"),
        (lambda: Physical(8, 3, modes=0), "modes must be positive"),
        (lambda: Physical(8, 3, timeout_s=0.0), "timeout_s must be positive"),
        (lambda: ModelFree(Physical(8, 3), theta=0.0), "theta must be positive"),
    ],
)
def test_what_cannot_be_is_refused(build, told):
    with pytest.raises((Unsupported, UserError), match=told):
        build()
