"""Captured updates end in the weights of updates as ever; on a CPU a stand-in replays what a card's graph would."""

import functools
import logging
import shutil

import pytest
import torch

import localearn
from localearn import cli
from localearn.errors import UserError
from localearn.training import capture
from localearn.training.capture import WARM_UP
from localearn.training.experiment import build
from localearn.training.settings import Settings
from tests.marks import rules_of, slow_but

SGD = functools.partial(torch.optim.SGD, lr=0.1)


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=110)  # of batches of 20 the last has 10


def fitted(digits, how, name="mono_forward", dropout=0.1, **options):
    overrides = [
        f"algo={name}",
        "dataset=digits",
        "dataset.train_size=110",
        "net.widths=[12,10]",
        f"net.dropout={dropout}",
    ]
    _, trainer, _ = build(*cli.compose(overrides))
    record = trainer.fit(digits, capture=how, **{"epochs": 3, "batch_size": 20} | options)
    return trainer.state_dict(), record


def trained(how, data, options, epochs=3):
    torch.manual_seed(0)
    net = [] if any(option.startswith("net") for option in options) else ["net.widths=[12,10]"]
    of = ["dataset=karate"] if data.kind == "graph" else ["dataset=digits", "dataset.train_size=110"]
    _, trainer, settings = build(*cli.compose([*of, *net, *options]))
    record = trainer.fit(data, capture=how, epochs=epochs, batch_size=20, precision=settings.precision)
    return trainer.state_dict(), record


def differing(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


def losses(record):
    return [(line["train_loss"], line["val_loss"], line["val_accuracy"]) for line in record.history]


@pytest.mark.parametrize("name", rules_of("mlp"))
def test_replayed_updates_end_in_the_same_bits(name, digits, stand_in):
    plain, record = fitted(digits, "off", name)
    replayed, captured = fitted(digits, "graph", name)
    assert not differing(plain, replayed)
    assert losses(captured) == losses(record)
    if name != "cafo":  # which is solved, and has no update
        assert (record.capture, captured.capture) == ("off", "graph")
        assert stand_in.replays == 3 * 5 - WARM_UP


OTHERS = [
    *([f"algo={name}", "net=cnn", "net.channels=[4,6]", "recipe=maps"] for name in rules_of("cnn") if name != "cafo"),
    *([f"algo={name}", "precision=bf16"] for name in ("backprop", "mono_forward", "forward_forward", "pepita")),
    ["algo=forward_gradient", "algo.space=weight"],
    ["algo=forward_gradient", "algo.tangents=3"],
    ["algo=forward_gradient", "algo.guess=local"],
    ["algo=likelihood_ratio", "algo.noise=sobol"],
    ["algo=likelihood_ratio", "algo.layerwise=true"],
    ["algo=likelihood_ratio", "algo.baseline=clean", "algo.antithetic=false"],
    ["algo=sign_symmetry", "algo.variant=brsf"],
    ["algo=sign_symmetry", "algo.variant=frsf"],
    ["algo=forward_forward", "algo.negatives=hard"],
    ["algo=forward_forward", "algo.prediction=goodness", "algo.collaboration=all"],
    ["algo=cafo", "algo.blocks=dfa", "algo.loss=ce"],
    ["algo=pepita", "algo.mirror=true"],
]  # fmt: skip


@pytest.mark.parametrize("options", slow_but(OTHERS, *OTHERS[1::4]), ids=" ".join)
def test_other_nets_and_options_are_replayed_too(options, digits, stand_in):
    plain, record = trained("off", digits, options)
    replayed, captured = trained("graph", digits, options)
    assert not differing(plain, replayed)
    assert (losses(captured), captured.capture) == (losses(record), "graph")


@pytest.mark.parametrize("net", ["gcn", "gat", "sage"])
@pytest.mark.parametrize("name", ["backprop", "mono_forward", "forward_forward", "likelihood_ratio"])
def test_a_graphs_one_batch_is_replayed(name, net, stand_in):
    karate, options = localearn.load("karate"), [f"algo={name}", f"net={net}", "net.widths=[16]"]
    plain, record = trained("off", karate, options, epochs=8)
    replayed, captured = trained("graph", karate, options, epochs=8)
    assert not differing(plain, replayed)
    assert (losses(captured), captured.capture) == (losses(record), "graph")


def test_validation_is_replayed_with_the_weights_as_they_are(digits, stand_in):
    _, record = fitted(digits, "off", epochs=6, eval_batch_size=50)
    before = stand_in.replays
    _, captured = fitted(digits, "graph", epochs=6, eval_batch_size=50)
    batches, last = divmod(digits.sizes["val"], 50)
    assert last and batches > 1
    steps, validations = 6 * 5 - WARM_UP, 6 * batches - WARM_UP + 6 - WARM_UP
    assert stand_in.replays - before == steps + validations
    assert losses(captured) == losses(record)


WRONG = {
    "looks": "if batch.x.sum().item() > 1e9: return {}",
    "counts": "self.count = getattr(self, 'count', 0) + 1; strength = self.count",
    "leaves": "self.last = batch.x.mean(); strength = self.before; self.before = self.last",
}


@pytest.mark.parametrize("fault", WRONG)
def test_the_stand_in_shows_what_a_card_would(fault, digits, stand_in, caplog):
    """A rule that a graph changes is caught by it: one that asks for a value, and two that live in Python."""
    source = f"""
from localearn import Backprop, Trainer
from localearn.trainers.base import cross_entropy

class Wrong(Trainer):
    before = 1.0

    def gradients(self, batch):
        strength = 1.0
        {WRONG[fault]}
        loss = cross_entropy(self.net(batch.x), batch)
        (loss * strength).backward()
        return {{"loss": loss.detach()}}
"""
    space: dict = {}
    exec(source, space)

    def states(how):
        torch.manual_seed(0)
        rule = space["Wrong"](localearn.MLP(digits.input_shape, digits.classes, widths=[8]))
        with caplog.at_level(logging.WARNING):
            record = rule.fit(digits, epochs=2, batch_size=20, capture=how, optim=SGD)
        return rule.state_dict(), record.capture

    (plain, _), (replayed, how) = states("off"), states("graph")
    if fault == "looks":
        assert how == "off" and "not permitted when stream is capturing" in caplog.text
    else:
        assert how == "graph" and differing(plain, replayed)


def test_a_schedule_is_recorded_anew_when_it_changes_the_rate(digits, stand_in):
    schedule = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    plain, _ = fitted(digits, "off", schedule=schedule, optim=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    made = stand_in.made
    replayed, _ = fitted(
        digits, "graph", schedule=schedule, optim=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    )
    assert not differing(plain, replayed)
    # A context for each first update, and for each first validation; a graph an epoch.
    assert stand_in.made - made == WARM_UP + 3 + 3


def test_a_rate_that_is_a_tensor_needs_no_new_graph(digits, stand_in):
    def asked():
        return {
            "schedule": functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
            "optim": lambda parameters: torch.optim.SGD(parameters, lr=torch.tensor(0.1), momentum=0.9, fused=True),
        }

    plain, _ = fitted(digits, "off", **asked())
    made = stand_in.made
    replayed, record = fitted(digits, "graph", **asked())
    assert not differing(plain, replayed)
    assert record.capture == "graph"
    assert stand_in.made - made == WARM_UP + 3 + 1


def test_clipped_and_stepwise_updates_are_replayed_too(digits, stand_in):
    assert not differing(fitted(digits, "off", clip_norm=0.1)[0], fitted(digits, "graph", clip_norm=0.1)[0])
    assert not differing(fitted(digits, "off", step="block")[0], fitted(digits, "graph", step="block")[0])


def test_greedy_stages_are_recorded_each(digits, stand_in):
    def greedy(how):
        torch.manual_seed(0)
        net = localearn.MLP(digits.input_shape, digits.classes, widths=[12, 10])
        trainer = localearn.MonoForward(net, schedule="greedy")
        trainer.fit(digits, epochs=2, batch_size=20, capture=how)
        return trainer.state_dict()

    assert not differing(greedy("off"), greedy("graph"))


def test_a_run_too_short_for_a_graph_is_called_one_without(digits, stand_in):
    assert fitted(digits, "graph", batch_size=110)[1].capture == "off"


def test_what_cannot_be_recorded_goes_on_as_ever_and_says_so_once(digits, stand_in, monkeypatch, caplog):
    def refuse(self, work):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(stand_in, "capture", refuse)
    plain, _ = fitted(digits, "off")
    with caplog.at_level(logging.WARNING):
        replayed, record = fitted(digits, "graph")
    assert not differing(plain, replayed)
    assert record.capture == "off"
    told = [line.getMessage() for line in caplog.records]
    assert told == ["MonoForward is trained without a graph: operation not permitted when stream is capturing"]


def test_a_graph_needs_a_cuda_device(digits, caplog):
    with caplog.at_level(logging.WARNING):
        _, record = fitted(digits, "graph")
    assert "capture=graph needs a CUDA device, and this is a cpu" in caplog.text
    assert record.capture == "off"
    assert fitted(digits, "auto")[1].capture == "off"


def test_a_checkpoint_of_a_captured_run_knows_nothing_of_graphs():
    parameter = torch.nn.Parameter(torch.zeros(2))
    state = torch.optim.Adam([parameter], capturable=True).state_dict()
    assert [group["capturable"] for group in capture.on_any_device(state)["param_groups"]] == [False]
    assert "capturable" not in capture.on_any_device(torch.optim.SGD([parameter]).state_dict())["param_groups"][0]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.slow
def test_compiled_blocks_end_in_the_same_weights_to_rounding(digits):
    plain, _ = fitted(digits, "off", dropout=0)  # whose masks a compiled net draws otherwise
    compiled, record = fitted(digits, "compile", dropout=0)
    assert record.capture == "compile"
    assert all(torch.allclose(plain[name], compiled[name], atol=1e-4) for name in plain)


def test_what_cannot_be_compiled_goes_on_as_ever_and_says_so(digits, monkeypatch, caplog):
    def broken(function, *arguments, **options):
        def compiled(*a, **k):
            raise RuntimeError("no compiler here")

        return compiled

    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING):
        compiled, record = fitted(digits, "compile")
    assert not differing(fitted(digits, "off")[0], compiled)
    assert record.capture == "off"
    assert "MonoForward is not compiled: no compiler here" in caplog.text


def test_ranks_are_not_captured():
    with pytest.raises(UserError, match="capture=graph works on a single process"):
        Settings(parallel="data", capture="graph")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", rules_of("mlp"))
def test_a_cards_graph_ends_in_the_same_weights_to_rounding(name, digits):
    plain, _ = fitted(digits, "off", name, device="cuda")
    replayed, record = fitted(digits, "graph", name, device="cuda")
    assert name == "cafo" or record.capture == "graph"
    assert all(torch.allclose(plain[key], replayed[key], atol=1e-3) for key in plain)


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
@pytest.mark.parametrize("what", ["weight_decay", "momentum", "nothing"])
def test_what_a_schedule_changes_is_in_the_graph(what, optim, digits, stand_in):
    """Weight decay or momentum, with no rate changed beside: a graph that holds the old one would go on with it."""
    made = {
        "sgd": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.5),
        "adamw": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5, fused=True),
    }[optim]

    class Changing(torch.optim.lr_scheduler.LRScheduler):
        def get_lr(self):
            for group in self.optimizer.param_groups:
                if what == "weight_decay":
                    group["weight_decay"] /= 8
                elif what == "momentum" and optim == "sgd":
                    group["momentum"] /= 2
                elif what == "momentum":
                    group["betas"] = (group["betas"][0] / 2, group["betas"][1])
            return self.base_lrs

    plain, record = fitted(digits, "off", dropout=0.0, optim=made, schedule=Changing, epochs=4)
    before = stand_in.made
    replayed, captured = fitted(digits, "graph", dropout=0.0, optim=made, schedule=Changing, epochs=4)
    assert not differing(plain, replayed)
    assert (losses(captured), captured.capture) == (losses(record), "graph")
    # A context for each first update and validation and a graph of validation; of the update a graph an epoch.
    assert stand_in.made - before == WARM_UP + WARM_UP + 1 + (1 if what == "nothing" else 4)


def test_a_recurrent_nets_feedback_is_replayed_and_stepped_block_by_block(stand_in):
    def trained(**how):
        asked = ["algo=state_feedback", "dataset=adding", "dataset.steps=6", "dataset.train_size=110"]
        data, trainer, _ = build(*cli.compose([*asked, "net.widths=[8,6]"]))
        record = trainer.fit(data, epochs=3, batch_size=20, device="cpu", **how)
        return trainer.state_dict(), record

    plain, record = trained()
    replayed, captured = trained(capture="graph")
    assert not differing(plain, replayed) and not differing(plain, trained(step="block")[0])
    assert (record.capture, captured.capture) == ("off", "graph") and stand_in.replays > 0
