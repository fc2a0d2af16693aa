"""A run that was stopped anywhere ends as if it had never been."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from localearn.records.folder import RunFolder
from localearn.training.callbacks import Callback, Context, attached
from tests.marks import posix, slow_but

# What may leave state behind between two steps; 60 rows in batches of 16 make 4 steps an epoch, 12 a stage.
KINDS = {
    "joint": ["algo=mono_forward"],
    "everything random": [
        "algo=backprop",
        "dataset.augment=crop_flip",
        "net.norm=batch",
        "net.dropout=0.3",
        "schedule=plateau",
        "schedule.patience=0",
        "optim=sgd",
        "clip_norm=1.0",
    ],
    "bfloat16, cosine, early stopping": ["precision=bf16", "schedule=cosine", "patience=2", "monitor=val_loss"],
    "greedy, features kept": ["algo.schedule=greedy", "net.norm=batch", "net.dropout=0.3"],
    "greedy, augmented": ["algo.schedule=greedy", "dataset.augment=crop", "patience=1", "schedule=step"],
    "tangents drawn": ["algo=forward_gradient", "algo.tangents=2", "net.dropout=0.3"],
    "wrong labels drawn, parameter groups": ["algo=forward_forward", "algo.negatives=hard"],
    "states fed back": ["algo=state_feedback", "algo.feedback=gaussian", "dataset=adding", "dataset.steps=6"],
    "systems that drift": ["algo=model_free", "net.modes=8", "net.drift_rate=0.05"],
    "fixed feedback": ["algo=direct_feedback_alignment", "restore_best=false"],
    "convolutions": [
        "net=cnn",
        "net.channels=[4,6]",
        "dataset.augment=crop_flip",
        "~net.widths",
        "batch_size=16",
    ],
}
QUICK = "wrong labels drawn, parameter groups"
GRAPH = ["dataset=karate", "algo.schedule=greedy", "net.widths=[8,8]", "epochs=3", "progress=false"]


def arguments_of(kind: str) -> list[str]:
    options = KINDS[kind]
    return [o for o in options if not o.startswith("~")]


@pytest.mark.parametrize("kind", slow_but(KINDS, "everything random", "greedy, augmented", QUICK))
@pytest.mark.parametrize("how", ["signal", "kill"])
def test_the_weights_and_the_history_are_those_of_the_run_never_stopped(kind, how, door, strike, killed, read):
    base = ["dataset.train_size=60", "batch_size=16", "epochs=3", "progress=false", "energy.enabled=false"]
    base += [] if kind == "convolutions" else ["net.widths=[12,10]"]
    assert door(*base, *arguments_of(kind), "out=whole").status == 0
    steps = 4 * len(read.history("whole"))
    # In the middle of an epoch, at its end, at its first step, before the last step of all.
    for number, step in enumerate((2, 4, 5, steps - 1)):
        out = f"out={number}"
        if how == "signal":
            strike(step, signal.SIGTERM)
            ended = door(*base, *arguments_of(kind), out)
            assert ended.status == 143, ended.err
            assert f"resume={number}" in ended.err
            assert read.record(str(number))["status"] == "interrupted"
        else:
            strike(step, killed)
            with pytest.raises(killed):
                door(*base, *arguments_of(kind), out)
            assert not Path(str(number), "run.json").exists()
        assert door(f"resume={number}", "progress=false").status == 0
        assert read.net(str(number)) == read.net("whole"), f"stopped after step {step}"
        assert read.timeless(read.history(str(number))) == read.timeless(read.history("whole"))


def test_a_run_that_is_older_than_an_option_goes_on_as_it_began(door, strike, read):
    base = ["dataset.train_size=60", "batch_size=16", "epochs=3", "progress=false", "energy.enabled=false", "net=cnn",
            "net.channels=[4,6]", "memory_format=contiguous"]  # fmt: skip
    assert door(*base, "out=whole").status == 0
    strike(6, signal.SIGTERM)
    assert door(*base, "out=old").status == 143
    config, since = Path("old/config.yaml"), ("step:", "capture:", "parallel:", "rank_timeout_s:", "memory_format:")
    lines = config.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(since)]
    assert len(lines) - len(kept) == len(since)
    config.write_text("".join(kept))
    assert door("resume=old", "progress=false").status == 0
    assert read.net("old") == read.net("whole")


@pytest.mark.parametrize("rule", ["mono_forward", "forward_gnn"])
def test_a_graph_goes_on_too(rule, door, strike, read):
    graph = [f"algo={rule}", *GRAPH, "energy.enabled=false"]
    assert door(*graph, "out=whole").status == 0
    strike(4, signal.SIGINT)
    assert door(*graph, "out=part").status == 130
    assert door("resume=part").status == 0
    assert read.net("part") == read.net("whole")
    assert read.timeless(read.history("part")) == read.timeless(read.history("whole"))


@pytest.mark.parametrize(
    ("method", "call", "after"),
    [
        ("save_checkpoint", 1, False),  # before there is any
        ("save_checkpoint", 2, True),  # its line of metrics.jsonl is not yet written
        ("append_metrics", 3, True),  # the last epoch of the first stage is over
        ("save_checkpoint", 4, False),  # in the second stage, whose checkpoint is not there
        ("append_metrics", 6, True),  # all epochs are over, the net is not written
        ("save_net", 1, True),  # nor the record
    ],
)
def test_a_kill_while_files_are_written_loses_nothing(method, call, after, tiny, door, killed_at, killed, read):
    assert tiny("algo.schedule=greedy", "out=whole").status == 0
    killed_at(RunFolder, method, call, after=after)
    with pytest.raises(killed):
        tiny("algo.schedule=greedy", "out=part")
    assert not Path("part/run.json").exists()
    assert door("resume=part").status == 0
    assert read.net("part") == read.net("whole")
    assert read.timeless(read.history("part")) == read.timeless(read.history("whole"))


def test_a_checkpoint_half_written_is_never_found(tiny, door, killed, monkeypatch, read):
    def half(state, file):
        file.write(b"PK\x03\x04 half of a checkpoint")
        raise killed

    assert tiny("out=whole").status == 0
    save, calls = torch.save, []

    def second_is_cut(state, file):
        calls.append(None)
        return half(state, file) if len(calls) == 2 else save(state, file)

    monkeypatch.setattr(torch, "save", second_is_cut)
    with pytest.raises(killed):
        tiny("out=part")
    assert door("resume=part").status == 0
    assert read.net("part") == read.net("whole")


def test_a_run_stopped_three_times_adds_up_and_names_every_seam(tiny, door, strike, killed, read, wall_energy):
    strike(3, signal.SIGINT)
    assert tiny("energy.enabled=true", "out=run").status == 130
    parts = [read.record("run")]
    strike(3, killed)  # in the second epoch, one step after the resumed one has ended
    with pytest.raises(killed):
        door("resume=run")
    strike(2, signal.SIGTERM)
    assert door("resume=run").status == 143
    parts.append(read.record("run"))
    assert door("resume=run").status == 0
    whole = read.record("run")
    assert [(seam["epoch"], seam["batch"]) for seam in whole["seams"]] == [(0, 3), (1, 0), (1, 2)]
    assert len(whole["energy"]["seams"]) == 3
    assert whole["started"] == parts[0]["started"]
    assert parts[0]["train_s"] < parts[1]["train_s"] < whole["train_s"]
    assert whole["setup_s"] > parts[1]["setup_s"] > parts[0]["setup_s"]
    assert parts[0]["energy"]["train_j"] == pytest.approx(100 * parts[0]["train_s"], rel=0.05)
    assert whole["energy"]["train_j"] == pytest.approx(100 * whole["train_s"], rel=0.05)
    earlier = [seam["earlier_s"]["train"] for seam in whole["energy"]["seams"]]
    assert earlier == sorted(earlier)
    assert earlier[0] == pytest.approx(parts[0]["train_s"])
    assert whole["peak_memory_bytes"] >= parts[0]["peak_memory_bytes"]
    lines = read.history("run")
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["passes"] for line in lines] == [1, 2, 3]
    assert lines[0]["train_s"] < lines[1]["train_s"] < lines[2]["train_s"] == whole["train_s"]


def test_a_completed_run_is_not_gone_on_with(tiny, door):
    assert tiny("out=run").status == 0
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    ended = door("resume=run")
    assert ended.status == 2
    assert "completed" in ended.err
    ended = tiny("out=run")
    assert ended.status == 2
    assert "resume=" in ended.err
    assert "another out=" in ended.err
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before


def test_a_run_whose_schedule_has_moved_since_is_resumed(tiny, door, strike):
    strike(6, signal.SIGINT)
    assert tiny("schedule=cool_down", "out=run").status == 130
    _edit(Path("run"), "localearn.training.optimization.CoolDown", "localearn.training.schedules.CoolDown")
    checkpoint = torch.load("run/checkpoint.pt", weights_only=True)
    saved = checkpoint["session"]["config"]["schedule"]
    assert saved["_target_"] == "localearn.training.optimization.CoolDown"
    saved["_target_"] = "localearn.training.schedules.CoolDown"
    torch.save(checkpoint, "run/checkpoint.pt")
    ended = door("resume=run")
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda run: _no_checkpoints(run), "cannot be read as a checkpoint"),
        (lambda run: torch.save({"a": torch.zeros(1)}, run / "checkpoint.pt"), "is not of this rule on this net"),
        (lambda run: _edit(run, "widths:\n  - 12", "widths:\n  - 13"), "net.widths was [12, 10] and is [13, 10]"),
        (lambda run: _edit(run, "train_size: 60", "train_size: 61"), "data_fingerprint"),
        (lambda run: _edit(run, "batch_size: 16", "batch_size: 32"), "batch_size"),
        (lambda run: run.joinpath("config.yaml").write_text("epochs: ["), "not a configuration of localearn.run"),
        (lambda run: run.joinpath("config.yaml").write_text("epochs: 3"), "not a configuration of localearn.run"),
        (lambda run: run.joinpath("config.yaml").unlink(), "no config.yaml"),
        (lambda run: _edit(run, "epochs: 3", "epochs: abc"), "epochs must be a whole number"),
    ],
)
def test_what_does_not_belong_to_the_run_is_told(change, told, tiny, door, strike):
    strike(6, signal.SIGINT)
    assert tiny("out=run").status == 130
    record = Path("run/run.json").read_bytes()
    change(Path("run"))
    ended = door("resume=run")
    assert ended.status == 2
    assert told in ended.err
    assert len(ended.err.splitlines()) <= 2
    assert Path("run/run.json").read_bytes() == record


def _no_checkpoints(run):
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (run / name).write_bytes(b"not a checkpoint")


def _edit(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert text.count(old) == 1
    (run / "config.yaml").write_text(text.replace(old, new))


class Impatient(Callback):
    """Sends two signals at once in the second epoch."""

    def step_ended(self, context: Context) -> None:
        if context.position.epoch == 1:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)


def test_a_second_signal_does_not_wait(tiny, door, read):
    with attached(Impatient()):
        ended = tiny("out=run")
    assert ended.status == 130
    assert read.record("run")["status"] == "interrupted"
    assert "at once" in read.record("run")["error"]
    assert tiny("out=whole").status == 0
    assert door("resume=run").status == 0
    assert read.net("run") == read.net("whole")


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
@posix
def test_a_real_process_is_struck_and_goes_on(how, tmp_path, door, process, read):
    common = ["dataset.train_size=400", "net.widths=[64]", "batch_size=4", "epochs=4", "progress=false"]
    common += ["energy.enabled=false"]
    assert door(*common, "out=whole").status == 0
    started = process(*common, "out=part")
    metrics = tmp_path / "part" / "metrics.jsonl"
    while not metrics.exists() and started.poll() is None:
        time.sleep(0.005)
    started.send_signal(getattr(signal, how))
    _, told = started.communicate(timeout=60)
    if how == "SIGTERM":
        assert started.returncode == 143, told
        assert json.loads((tmp_path / "part" / "run.json").read_text())["status"] == "interrupted"
    else:
        assert started.returncode == -signal.SIGKILL
        assert not (tmp_path / "part" / "run.json").exists()
    assert door("resume=part").status == 0
    assert read.net("part") == read.net("whole")
    assert read.timeless(read.history("part")) == read.timeless(read.history("whole"))


@pytest.mark.parametrize(
    ("rule", "options", "was"),
    [
        ("direct_feedback_alignment", ["scale", "feedback"], {"scale": "width"}),
        ("forward_forward", ["peer_scale"], {"peer_scale": "port"}),
    ],
)
def test_a_run_that_is_older_than_its_rules_options_goes_on_by_what_it_did(door, rule, options, was):
    """The run is written as before the options came: neither its config.yaml nor its checkpoint has them."""
    typed = [f"algo.{name}={value}" for name, value in was.items()]
    few = ["net.widths=[8,8]", "energy.enabled=false", "progress=false"]
    for out, epochs in (("old", 1), ("whole", 2)):
        assert door(f"algo={rule}", *typed, *few, f"epochs={epochs}", "schedule=constant", f"out={out}").status == 0
    config = yaml.safe_load(Path("old/config.yaml").read_text())
    state = torch.load("old/checkpoint.pt", weights_only=True)
    for name in options:
        del config["algo"][name], state["session"]["config"]["algo"][name]
    Path("old/config.yaml").write_text(yaml.safe_dump(config))
    torch.save(state, "old/checkpoint.pt")
    ended = door("resume=old", "epochs=2")
    assert ended.status == 0, ended.err
    weights = [torch.load(f"{out}/checkpoint.pt", weights_only=True)["trainer"] for out in ("old", "whole")]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
