"""Captured updates end in the weights of updates as ever; on a CPU a stand-in replays what a card's graph would."""

import contextlib
import copy
import functools
import logging
import shutil

import pytest
import torch

import localearn
from localearn.bench import known_rules
from localearn.errors import UserError
from localearn.training import capture
from localearn.training.settings import Settings


class StandIn:
    """A graph for the CPU: it records without doing, and every replay overwrites the same metrics."""

    made = 0
    replays = 0
    trainer: localearn.Trainer
    optimizer: torch.optim.Optimizer

    def __init__(self, device):
        StandIn.made += 1

    def capture(self, work):
        update = (
            work.__closure__
            and next(cell.cell_contents for cell in work.__closure__ if hasattr(cell.cell_contents, "update")).update
        )
        before = copy.deepcopy((update.trainer.state_dict(), update.optimizer.state_dict(), torch.get_rng_state()))
        self.metrics = {name: value.clone() for name, value in work().items()}
        update.trainer.load_state_dict(before[0])
        update.optimizer.load_state_dict(before[1])
        torch.set_rng_state(before[2])
        self.work = work
        return self.metrics

    def replay(self):
        StandIn.replays += 1
        for name, value in self.work().items():
            self.metrics[name].copy_(value)

    def warming_up(self):
        return contextlib.nullcontext()


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(capture, "graph_of", StandIn)
    StandIn.made = StandIn.replays = 0
    return StandIn


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=110)  # of batches of 20 the last has 10


def fitted(digits, how, name="mono_forward", dropout=0.1, **options):
    from localearn import cli
    from localearn.training.experiment import build

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


def differing(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("name", known_rules())
def test_replayed_updates_end_in_the_same_bits(name, digits, stand_in):
    plain, record = fitted(digits, "off", name)
    replayed, captured = fitted(digits, "graph", name)
    assert not differing(plain, replayed)
    assert [line["train_loss"] for line in captured.history] == [line["train_loss"] for line in record.history]
    if name != "cafo":  # which is solved, and has no update
        assert (record.capture, captured.capture) == ("off", "graph")
        assert stand_in.replays == 3 * 5 - capture.WARM_UP


def test_a_schedule_is_recorded_anew_when_it_changes_the_rate(digits, stand_in):
    schedule = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    plain, _ = fitted(digits, "off", schedule=schedule, optim=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    made = stand_in.made
    replayed, _ = fitted(
        digits, "graph", schedule=schedule, optim=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    )
    assert not differing(plain, replayed)
    assert stand_in.made - made == capture.WARM_UP + 3  # a context for each first update, a graph an epoch


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


def test_a_graphs_one_batch_is_recorded(stand_in):
    karate = localearn.load("karate")

    def trained(how):
        torch.manual_seed(0)
        trainer = localearn.MonoForward(localearn.GNN(karate.input_shape, karate.classes, widths=[8]))
        record = trainer.fit(karate, epochs=6, capture=how)
        return trainer.state_dict(), record.capture

    (plain, _), (replayed, how) = trained("off"), trained("graph")
    assert not differing(plain, replayed)
    assert how == "graph"


def test_a_run_too_short_for_a_graph_is_called_one_without(digits, stand_in):
    assert fitted(digits, "graph", batch_size=110)[1].capture == "off"


def test_what_cannot_be_recorded_goes_on_as_ever_and_says_so_once(digits, stand_in, monkeypatch, caplog):
    def refuse(self, work):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(StandIn, "capture", refuse)
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
    with pytest.raises(UserError, match="capture=graph is of a process alone"):
        Settings(parallel="data", capture="graph")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", known_rules())
def test_a_cards_graph_ends_in_the_same_weights_to_rounding(name, digits):
    plain, _ = fitted(digits, "off", name, device="cuda")
    replayed, record = fitted(digits, "graph", name, device="cuda")
    assert name == "cafo" or record.capture == "graph"
    assert all(torch.allclose(plain[key], replayed[key], atol=1e-3) for key in plain)
