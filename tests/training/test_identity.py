"""A record's names, and what a resumed run is held against."""

import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import localearn
from localearn.errors import UserError
from localearn.records.folder import RunFolder
from localearn.training.resume import check_resumed

RULES = """
import torch.nn.functional as F
import localearn


class Readouts(localearn.MonoForward):
    pass


class Small(localearn.MLP):
    pass
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    Path("named_rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "field", "name"),
    [
        ("algo._target_=named_rules.Readouts", "algo", "Readouts"),
        ("algo._target_=localearn.MonoForward", "algo", "mono_forward"),
        ("net._target_=named_rules.Small", "net", "Small"),
    ],
)
def test_a_record_names_what_was_built(given, field, name, tiny, read, rules):
    ended = tiny(given, "out=run")
    assert ended.status == 0, ended.err
    assert read.record("run")[field] == name


def test_a_data_set_named_otherwise_is_recorded_as_what_was_loaded(door, read):
    options = ["dataset.name=karate", "net=gcn", "net.widths=[4]", "epochs=1", "progress=false", "energy.enabled=false"]
    ended = door(*options, "out=run")
    assert ended.status == 0, ended.err
    assert read.record("run")["dataset"] == "karate"
    assert door(*options).status == 0
    assert "karate" in next(Path("runs").iterdir()).name


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("epochs: 3", "epochs: 4", "epochs was 3 and is 4"),
        ("lr: 0.001", "lr: 0.5", "optim.lr was 0.001 and is 0.5"),
        ("dropout: 0.0", "dropout: 0.5", "net.dropout was 0.0 and is 0.5"),
        ("activation: relu", "activation: tanh", "net.activation was 'relu' and is 'tanh'"),
        ("  algo: mono_forward", "  algo: backprop", "choices.algo was 'mono_forward' and is 'backprop'"),
        ("clip_norm: null", "clip_norm: 1.0", "clip_norm was None and is 1.0"),
        ("augment: none", "augment: crop", "dataset.augment was 'none' and is 'crop'"),
    ],
)
def test_an_edited_configuration_is_refused(before, after, told, door, strike, read):
    base = ["dataset.train_size=60", "batch_size=16", "epochs=3", "progress=false", "energy.enabled=false"]
    strike(6, signal.SIGTERM)
    assert door(*base, "net.widths=[8]", "optim.lr=0.001", "out=run").status == 143
    config = Path("run/config.yaml")
    text = config.read_text()
    assert text.count(before) >= 1
    config.write_text(text.replace(before, after, 1))
    ended = door("resume=run")
    assert ended.status == 2 and told in ended.err, ended.err
    config.write_text(text)
    assert door("resume=run").status == 0


def test_a_completed_run_goes_on_for_more_epochs_as_if_it_had_never_ended(door, read):
    base = ["dataset.train_size=60", "batch_size=16", "progress=false", "energy.enabled=false", "net.widths=[8]"]
    assert door(*base, "epochs=5", "out=whole").status == 0
    assert door(*base, "epochs=3", "out=part").status == 0
    assert "epochs=N" in door("resume=part").err
    assert "completed 3 epochs already" in door("resume=part", "epochs=3").err
    assert read.record("part")["status"] == "completed"
    assert door("resume=part", "epochs=5", "progress=false").status == 0
    assert read.net("part") == read.net("whole")
    assert read.timeless(read.history("part")) == read.timeless(read.history("whole"))
    record = read.record("part")
    assert record["epochs"] == 5 and record["config"]["epochs"] == 5
    assert [seam["with"] for seam in record["seams"]] == [{"epochs": 5}]
    assert "epochs: 5" in Path("part/config.yaml").read_text()


def test_a_run_stopped_early_goes_on_with_more_patience_alone(door, read):
    base = ["dataset.train_size=60", "batch_size=16", "progress=false", "energy.enabled=false", "net.widths=[8]"]
    assert door(*base, "epochs=6", "patience=1", "min_delta=1.0", "out=run").status == 0
    stopped = read.record("run")["epochs"]
    assert stopped < 6
    assert "patience" in door("resume=run", "epochs=8").err
    assert door("resume=run", "patience=null").status == 0
    assert read.record("run")["epochs"] == 6


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["schedule=cosine"], "CosineAnnealingLR"),
        (["algo.schedule=greedy"], "2 stages"),
    ],
)
def test_a_run_that_cannot_be_trained_longer_says_why(options, told, door, read):
    base = ["dataset.train_size=60", "progress=false", "energy.enabled=false", "net.widths=[8,8]", "epochs=2"]
    assert door(*base, *options, "out=run").status == 0
    ended = door("resume=run", "epochs=4")
    assert ended.status == 2 and told in ended.err
    assert read.record("run")["status"] == "completed"


def test_a_rule_built_otherwise_in_python_is_refused(tmp_path):
    data = localearn.load("digits", train_size=60)

    def trainer(p: float) -> localearn.Trainer:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(p), nn.Linear(8, 10))
        return localearn.Backprop(localearn.Net.from_sequential(model, (1, 8, 8)))

    def watch(line: dict) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    trainer(0.1).fit(data, epochs=1, out=out)
    with pytest.raises(UserError, match=r"p=0.1.*p=0.5"):
        trainer(0.5).fit(data, epochs=2, out=out, resume=True)
    assert trainer(0.1).fit(data, epochs=2, out=out, resume=True).epochs == 2


def test_a_run_completed_by_another_process_meanwhile_is_not_overwritten(tiny, monkeypatch, read):
    lock = RunFolder.lock

    def completed_meanwhile(self):
        monkeypatch.setattr(RunFolder, "lock", lock)
        assert tiny("out=run").status == 0
        return lock(self)

    monkeypatch.setattr(RunFolder, "lock", completed_meanwhile)
    ended = tiny("out=run", "epochs=2")
    assert ended.status == 2 and "already holds a run" in ended.err
    assert read.record("run")["status"] == "completed"


def test_a_checkpoint_of_before_the_monitor_was_the_tasks_first_metric_by_default_is_gone_on_with():
    check_resumed("out", {"monitor": "val_accuracy"}, {"monitor": None}, {})
    with pytest.raises(UserError, match="monitor was 'val_loss' and is None"):
        check_resumed("out", {"monitor": "val_loss"}, {"monitor": None}, {})
    with pytest.raises(UserError, match="monitor was 'val_accuracy' and is 'val_loss'"):
        check_resumed("out", {"monitor": "val_accuracy"}, {"monitor": "val_loss"}, {})
