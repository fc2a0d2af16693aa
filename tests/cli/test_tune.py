import contextlib
import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import filelock
import optuna
import pytest

from localearn import cli
from localearn.cli import run, tune
from localearn.errors import UserError
from localearn.records.folder import locked
from localearn.training.callbacks import Callback, attached
from localearn.tuning import recovery, search
from localearn.tuning.search import Limits
from tests.helpers.searches import TINY, started
from tests.helpers.studies import sqlite, study_of
from tests.marks import posix, slow_but

AT_ONCE = Limits(starting_s=0.0)  # a trial whose lock nobody holds is taken over, however young


@pytest.fixture
def tiny():
    return list(TINY)


def states(study):
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def records(out):
    return [json.loads(path.read_text()) for path in sorted((out / "trials").glob("*/run.json"))]


def test_a_search_leaves_its_best_as_localearn_run_takes_it(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    assert tune.main([*tiny, "trials=4", f"out={out}"]) == 0

    study = study_of(out)
    assert len(study.trials) == 4
    assert {"best.yaml", "tune.json", "history.png", "study.db", "trials"} <= {path.name for path in out.iterdir()}
    best = max((trial for trial in study.trials if trial.values), key=lambda trial: trial.values[0])
    assert run.main([f"config={out / 'best.yaml'}", f"out={tmp_path / 'run'}", "progress=false"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["optim"]["lr"] == best.params["optim.lr"]
    assert record["val_accuracy"] == best.values[0], "the same seed, the same options"
    assert f"config={out / 'best.yaml'}" in capsys.readouterr().out


class Interrupts(Callback):
    """Has Ctrl-C come when two epochs are over."""

    def epoch_ended(self, context):
        if context.line["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGINT)


class Stops(Callback):
    """Stops a run when two epochs are over, as a pruner does."""

    def epoch_ended(self, context):
        if context.line["epoch"] == 2:
            context.stop("pruned after 2 epochs")


class Evaluations(Callback):
    """Notes how many rows the net is given each time that it is evaluated."""

    def __init__(self):
        self.rows, self.sizes = [], {}

    def run_started(self, context):
        self.sizes = context.data.sizes
        context.net.block(0).register_forward_pre_hook(
            lambda block, given: None if block.training else self.rows.append(len(given[0]))
        )


def test_the_test_split_is_never_looked_at(tiny, tmp_path):
    """After each of three epochs, and at the end, it is the validation split, whole, that the net is given."""
    looked = Evaluations()
    with attached(looked):
        tune.main([*tiny, "trials=2", f"out={tmp_path}"])
    assert looked.rows == [looked.sizes["val"]] * 2 * (3 + 1)
    assert looked.sizes["test"] != looked.sizes["val"]
    assert all(record["test_accuracy"] is None for record in records(tmp_path))


def test_the_same_command_goes_on_and_a_done_search_runs_nothing(tiny, tmp_path, capsys):
    tune.main([*tiny, "trials=2", f"out={tmp_path}"])
    tune.main([*tiny, "trials=4", f"out={tmp_path}"])
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "trials").glob("*/run.json"))]
    tune.main([*tiny, "trials=4", f"out={tmp_path}"])
    assert len(before) == 4
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "trials").glob("*/run.json"))] == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["tune.space.lr.high=0.5"], "searches other ranges: optim.lr"),
        (["batch_size=20"], "has other options: .*batch_size=40 there, not batch_size=20"),
        (["objective=accuracy_energy", "energy.enabled=true"], "has other options|is: accuracy there"),
    ],
)
def test_a_study_that_searches_something_else_is_refused(tiny, tmp_path, change, message):
    tune.main([*tiny, "trials=1", f"out={tmp_path}", "study=one"])
    with pytest.raises(UserError, match=message):
        tune.main([*tiny, "trials=1", f"out={tmp_path}", "study=one", *change])


@pytest.mark.slow
def test_each_workers_seconds_are_kept(tiny, tmp_path):
    """Where one wrote over the other's, a search by many would seem as cheap as its last worker."""
    told = []
    for name in ("a", "b", "a"):
        tune.main([*tiny, f"trials={len(told) + 1}", f"out={tmp_path}"], name=f"host:{name}")
        told.append(json.loads((tmp_path / "tune.json").read_text())["tuning"]["workers_s"])
    assert [list(workers) for workers in told] == [["host:a"], ["host:a", "host:b"], ["host:a", "host:b"]]
    assert told[2]["host:b"] == told[1]["host:b"] > 0
    assert told[2]["host:a"] > told[1]["host:a"] == told[0]["host:a"] > 0


def test_a_seeded_search_repeats(tiny, tmp_path):
    for name in ("a", "b"):
        tune.main([*tiny, "trials=3", f"out={tmp_path / name}"])
    first, second = ([trial.params for trial in study_of(tmp_path / name).trials] for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize("sampler", ["gp", "cmaes", "random", "qmc"])
def test_every_sampler_searches(tiny, tmp_path, sampler):
    tune.main([*tiny, "epochs=1", "trials=3", f"sampler={sampler}", "pruner=hyperband", f"out={tmp_path}"])
    assert len({trial.params["optim.lr"] for trial in study_of(tmp_path).trials}) == 3


def test_a_trial_that_the_pruner_ends_is_pruned_and_counts(tiny, tmp_path):
    """A rate that learns nothing lies below the median as soon as there is one, after five trials."""
    choices = "tune.space.lr={choices:[0.05,1e-8]}"
    tune.main([*tiny, "sampler=random", "pruner=median", choices, "trials=9", f"out={tmp_path}"])
    found = states(study_of(tmp_path))
    assert found.count("COMPLETE") + found.count("PRUNED") == len(found) == 9
    assert found[:5] == ["COMPLETE"] * 5 and "PRUNED" in found
    ended = {"COMPLETE": ("completed", 3), "PRUNED": ("stopped", 1)}
    assert [(record["status"], record["epochs"]) for record in records(tmp_path)] == [ended[state] for state in found]
    assert all("pruned after 1 epochs" in r["error"] for r in records(tmp_path) if r["status"] == "stopped")


def test_a_trial_that_diverges_counts_as_pruned(tiny, tmp_path):
    tune.main([*tiny, "optim=sgd", "tune.space.lr={low:1e20,high:1e30}", "trials=2", f"out={tmp_path}"])
    assert states(study_of(tmp_path)) == ["PRUNED", "PRUNED"]


def test_accuracy_and_energy_end_in_a_front(tiny, tmp_path, capsys):
    arguments = [*tiny[:-1], "energy.idle_s=0", "trials=3", "objective=accuracy_energy", f"out={tmp_path}"]
    tune.main(arguments)
    values = [trial.values for trial in study_of(tmp_path).trials]
    assert all(0 <= accuracy <= 1 and joules > 0 for accuracy, joules in values)
    told = json.loads((tmp_path / "tune.json").read_text())
    best = [values[number] for number in told["best"]]
    for value in values:
        assert value in best or any(b[0] >= value[0] and b[1] <= value[1] for b in best)
    (spent,) = told["tuning"]["energy"]
    assert spent["label"] == "estimated"
    assert spent["energy_j"] > sum(joules for _, joules in values), "validation is part of what tuning took"
    assert "tuning took" in capsys.readouterr().out


def test_energy_without_a_meter_is_refused_before_anything_runs(tiny, tmp_path):
    with pytest.raises(UserError, match=r"energy\.enabled=true"):
        tune.main([*tiny, "objective=accuracy_energy", f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


@pytest.fixture
def one_cycle(tmp_path):
    """Arguments of a schedule of four epochs."""
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    options = "_target_: torch.optim.lr_scheduler.OneCycleLR\n_partial_: true\nmax_lr: 0.1\ntotal_steps: 4\n"
    (tmp_path / "conf" / "schedule" / "one_cycle.yaml").write_text(options)
    return ["--config-dir", str(tmp_path / "conf"), "schedule=one_cycle"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["epochs=5"], "^schedule: Tried to step .* in epoch 5 of 5$"),
        (["tune.space.epochs={choices:[6,2]}"], "^with epochs=6, schedule: .* in epoch 5 of 6$"),
        (["tune.space.epochs={low:2,high:9}"], "^with epochs=9, schedule: .* in epoch 5 of 9$"),
        (["tune.space.schedule.total_steps={low:2,high:9}"], "^with schedule.total_steps=2, schedule: .* 3 of 3$"),
        (["tune.space.optim.lr={low:-1.0,high:1.0}"], "^with optim.lr=-1.0, optim: Invalid learning rate: -1.0$"),
    ],
)
def test_a_schedule_that_the_trials_would_outlast_is_refused_before_anything_runs(
    tiny, one_cycle, tmp_path, more, said
):
    with pytest.raises(UserError, match=said):
        tune.main([*tiny, *one_cycle, *more, f"out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_schedule_that_lasts_is_searched_with(tiny, one_cycle, tmp_path):
    arguments = [*tiny, *one_cycle, "tune.space.epochs={choices:[2,4]}", "trials=1", f"out={tmp_path / 'out'}"]
    assert tune.main(arguments) == 0
    assert states(study_of(tmp_path / "out")) == ["COMPLETE"]


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
@posix
def test_a_worker_that_was_stopped_in_a_trial_goes_on_with_it(tiny, tmp_path, how):
    out = tmp_path / "out"
    arguments = [*tiny, "epochs=400", "pruner=none", "trials=2", "heartbeat_s=1", f"out={out}"]
    worker = started(arguments, tmp_path)
    metrics = out / "trials" / "0000" / "metrics.jsonl"
    until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 5)
    worker.send_signal(getattr(signal, how))
    worker.communicate(timeout=60)
    assert worker.returncode == (-9 if how == "SIGKILL" else 130)

    assert tune.main(arguments, limits=AT_ONCE) == 0
    assert sorted(states(study_of(out))) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert [len(record["seams"]) for record in records(out)] == [1, 0], "it went on from its checkpoint"
    assert [record["epochs"] for record in records(out)] == [400, 400]


@pytest.mark.parametrize(
    ("file", "left", "said"),
    slow_but(
        [
            ("checkpoint.pt", b"PK\x03\x04 half", None),  # the one before it is there
            ("config.yaml", b"seed: 0\nopt", "config.yaml is not a configuration of localearn.run"),
            ("config.yaml", None, "there is no config.yaml"),
            ("run.json", b'{"schema": 1, "stat', None),
            ("metrics.jsonl", b'{"stage": 0, "ep', None),
        ],
        ("checkpoint.pt", b"PK\x03\x04 half", None),
        ("config.yaml", b"seed: 0\nopt", "config.yaml is not a configuration of localearn.run"),
    ),
)
def test_a_half_written_trial_goes_on_or_begins_anew_and_it_is_told(tiny, tmp_path, capsys, file, left, said):
    out = tmp_path / "out"
    arguments = [*tiny, "epochs=4", "pruner=none", "trials=1", f"out={out}"]
    with attached(Interrupts()):
        assert tune.main(arguments) == 130
    damaged = out / "trials" / "0000" / file
    damaged.unlink()
    if left is not None:
        damaged.write_bytes(left)
    assert tune.main(arguments) == 0
    (record,) = [json.loads((out / "trials" / "0000" / "run.json").read_text())]
    assert (record["status"], len(record["seams"])) == ("completed", int(said is None))
    assert states(study_of(out)).count("COMPLETE") == 1
    told = capsys.readouterr().err
    assert (said in told and "0000 starts again" in told) if said else "starts again" not in told
    assert (out / "trials" / "0000.broken-0").exists() == bool(said)


@pytest.mark.slow
def test_a_journal_on_a_shared_disk_finds_the_dead_by_their_locks(tiny, tmp_path):
    out = tmp_path / "out"
    arguments = [
        *tiny,
        "epochs=400",
        "pruner=none",
        "trials=2",
        f"storage=journal:{tmp_path}/s/study.log",
        f"out={out}",
    ]
    worker = started(arguments, tmp_path)
    metrics = out / "trials" / "0000" / "metrics.jsonl"
    until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 5)
    worker.kill()
    worker.communicate(timeout=60)

    assert tune.main(arguments, limits=AT_ONCE) == 0
    assert [len(record["seams"]) for record in records(out)] == [1, 0]


def test_a_surplus_trial_is_given_back(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(search.Search, "_is_surplus", lambda self, number: number == 1)
    tune.main([*tiny, "trials=2", f"out={tmp_path}"])
    assert states(study_of(tmp_path)) == ["COMPLETE", "FAIL", "COMPLETE"]


def old_schema(path):
    optuna.create_study(storage=sqlite(path))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'")


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("study.db", "is no URL of a database"),
        ("nosuchbase://here/there", "is no URL of a database"),
        ("postgresql://me:secret@127.0.0.1:1/none", "cannot be used: connection"),
        ("journal:/proc/none/study.log", "cannot be used"),
        ("sqlite:////proc/none/study.db", "cannot be used"),
        ("sqlite:///{old}", "another version of Optuna"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_in_a_line(tiny, tmp_path, storage, message):
    if "{old}" in storage:
        old_schema(tmp_path / "old.db")
    with pytest.raises(UserError, match=message) as refusal:
        tune.main([*tiny, f"storage={storage.format(old=tmp_path / 'old.db')}", f"out={tmp_path / 'out'}"])
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_study_that_somebody_else_began_is_refused(tiny, tmp_path):
    optuna.create_study(storage=sqlite(tmp_path / "a.db"), study_name="mine", direction="maximize")
    with pytest.raises(UserError, match="not begun by localearn"):
        tune.main(
            [*tiny, f"storage=sqlite:///{tmp_path}/a.db", "study=mine", f"out={tmp_path / 'out'}"],
            limits=Limits(join_s=0.2),
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("a: [", "is not valid YAML"),
        ("algo: cafo", "must hold a list"),
        ("overrides: [3]", "must hold a list"),
    ],
)
def test_a_file_of_overrides_that_is_none_is_refused(tmp_path, text, message):
    path = tmp_path / "best.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        cli.compose([f"config={path}"])


def test_what_stands_behind_a_file_of_overrides_wins(tmp_path):
    path = tmp_path / "best.yaml"
    path.write_text("overrides: [algo=cafo, epochs=7, seed=3]")
    config, chosen = cli.compose([f"config={path}", "algo=backprop", "seed=4"])
    assert (chosen["algo"], config.epochs, config.seed) == ("backprop", 7, 4)


def test_a_sweep_takes_a_file_of_overrides(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("best.yaml").write_text(json.dumps({"overrides": tiny}))
    assert run.main(["-m", "config=best.yaml", "seed=0,1", "epochs=1", "progress=false"]) == 0
    assert capsys.readouterr().out.count("1 passes") == 2


def test_a_study_without_its_objective_is_told(tiny, tmp_path):
    assert tune.main([*tiny, "trials=1", f"out={tmp_path}"]) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("delete from study_directions")
    database.close()
    with pytest.raises(UserError, match="is damaged: it has 0 objectives"):
        tune.main([*tiny, "trials=3", f"out={tmp_path}"])


def test_a_search_whose_trials_are_never_taken_in_ends(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "run_trial", lambda *arguments: [0.5, 0.5, 0.5])
    with pytest.raises(UserError, match="none of 3 trials in a row"):
        tune.main([*tiny, "trials=4", f"out={tmp_path}"])


@pytest.mark.slow
def test_an_emptied_study_is_not_begun_anew_over_its_trials(tiny, tmp_path):
    assert tune.main([*tiny, "trials=1", f"out={tmp_path}"]) == 0
    for left in (b"", None):
        (tmp_path / "study.db").unlink()
        if left is not None:
            (tmp_path / "study.db").write_bytes(left)
        for _ in range(2):
            with pytest.raises(UserError, match="knows nothing of"):
                tune.main([*tiny, "trials=3", f"out={tmp_path}"])


def overwritten(path):
    path.write_bytes(b"no database" * 1000)


def torn(path):
    """Overwrite pages in the middle, as a disk does: the file opens, and breaks where it is read."""
    content = bytearray(path.read_bytes())
    content[4096:-4096] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)


def without_objective(path):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("delete from study_directions")
    database.close()


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", slow_but([overwritten, torn, without_objective, emptied, Path.unlink], torn))
@pytest.mark.slow
def test_a_damaged_database_is_set_aside_and_its_trials_go_on(tiny, tmp_path, capsys, damage):
    out = tmp_path / "out"
    arguments = [*tiny, f"out={out}"]
    assert tune.main([*arguments, "trials=3"]) == 0
    before, told = study_of(out).trials, json.loads((out / "tune.json").read_text())
    for earlier in range(2):
        assert not (out / f"study.damaged-{earlier + 1}.db").exists()
        damage(out / "study.db")
        left = (out / "study.db").read_bytes() if (out / "study.db").exists() else None
        with pytest.raises(UserError, match="aside=true sets it aside") as refusal:
            tune.main([*arguments, "trials=4"])
        assert "\n" not in str(refusal.value)
        assert tune.main([*arguments, f"trials={4 + earlier}", "aside=true"]) == 0
        if left is not None and damage is not emptied:
            assert (out / f"study.damaged-{earlier + 1}.db").read_bytes() == left
        if damage is Path.unlink and not earlier:
            # The refusal made a database of its own, without a study.
            assert [path.name for path in out.glob("study.damaged-*")] == ["study.damaged-1.db"]
    after = study_of(out).trials
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 3 + [trial.state.name for trial in after[3:]]
    assert len(after) == len(records(out)) == 5
    for one, other in zip(before, after, strict=False):
        assert (one.params, one.values, one.distributions) == (other.params, other.values, other.distributions)
        assert one.intermediate_values == other.intermediate_values
        assert {k: v for k, v in one.user_attrs.items() if k != "worker"} == other.user_attrs
    assert len({trial.params["optim.lr"] for trial in after}) == 5, "nothing is suggested a second time"
    now = json.loads((out / "tune.json").read_text())
    assert sum(now["tuning"]["workers_s"].values()) > sum(told["tuning"]["workers_s"].values())
    assert (
        "in the new study by their records 3, to go on from where they stopped 0, left out 0" in capsys.readouterr().err
    )


def test_a_good_database_is_left_where_it_is(tiny, tmp_path, capsys):
    for trials in (1, 2):
        assert tune.main([*tiny, f"trials={trials}", "aside=true", f"out={tmp_path}"]) == 0
    assert not list(tmp_path.glob("*damaged*"))
    assert states(study_of(tmp_path)) == ["COMPLETE"] * 2
    assert capsys.readouterr().err == ""


def test_a_database_of_other_studies_too_stays_and_is_given_the_trials(tiny, tmp_path):
    for study in ("one", "two"):
        tune.main(
            [*tiny, "trials=1", f"study={study}", f"storage=sqlite:///{tmp_path}/s.db", f"out={tmp_path / study}"]
        )
    optuna.delete_study(study_name="one", storage=sqlite(tmp_path / "s.db"))
    shared = [*tiny, "trials=2", "study=one", f"storage=sqlite:///{tmp_path}/s.db", f"out={tmp_path / 'one'}"]
    assert tune.main([*shared, "aside=true"]) == 0
    assert [path.name for path in tmp_path.glob("*.db")] == ["s.db"]
    assert sorted(optuna.get_all_study_names(sqlite(tmp_path / "s.db"))) == ["one", "two"]
    assert len(records(tmp_path / "one")) == 2


@pytest.mark.slow
def test_trials_that_were_pruned_unfinished_or_anothers_are_told_apart(tiny, tmp_path, capsys):
    arguments = [*tiny, f"out={tmp_path}"]
    with attached(Stops()):
        tune.main([*arguments, "trials=1"])
    with attached(Interrupts()):
        assert tune.main([*arguments, "trials=2"]) == 130
    shutil.copytree(tmp_path / "trials" / "0000", tmp_path / "trials" / "0003")
    config = tmp_path / "trials" / "0003" / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 40", "batch_size: 41"))
    (tmp_path / "trials" / "9999999").mkdir()  # somebody's own
    overwritten(tmp_path / "study.db")
    assert tune.main([*arguments, "trials=3", "pruner=none", "aside=true"]) == 0
    trials = study_of(tmp_path).trials
    assert states(study_of(tmp_path)) == ["PRUNED", "FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert [trial.user_attrs.get("origin") for trial in trials] == [0, None, None, None, 1, 5]
    assert len(json.loads((tmp_path / "trials" / "0001" / "run.json").read_text())["seams"]) == 1, "it went on"
    assert "records 1, to go on from where they stopped 1, left out 1" in capsys.readouterr().err


def test_a_database_that_a_worker_is_at_is_not_set_aside(tiny, tmp_path):
    tune.main([*tiny, "trials=1", f"out={tmp_path}"])
    overwritten(tmp_path / "study.db")
    with locked(tmp_path / "trials" / "0001.lock", wait=False), pytest.raises(UserError, match="is at trial 0001"):
        tune.main([*tiny, "trials=2", "aside=true", f"out={tmp_path}"])
    assert (tmp_path / "study.db").exists()


@pytest.mark.parametrize(
    "damage", slow_but([lambda path: path.write_bytes(b"{no\n" + path.read_bytes()), emptied], emptied)
)
def test_a_damaged_journal_is_set_aside_and_an_emptied_one_written_on(tiny, tmp_path, damage):
    arguments = [*tiny, f"storage=journal:{tmp_path}/study.log", f"out={tmp_path}"]
    tune.main([*arguments, "trials=1"])
    damage(tmp_path / "study.log")
    with pytest.raises(UserError, match="aside=true"):
        tune.main([*arguments, "trials=2"])
    assert tune.main([*arguments, "trials=2", "aside=true"]) == 0
    assert (tmp_path / "study.damaged-1.log").exists() == (damage is not emptied)
    assert len(records(tmp_path)) == 2


@pytest.mark.slow
def test_a_study_that_was_half_made_of_records_is_none(tiny, tmp_path, monkeypatch):
    tune.main([*tiny, "trials=2", f"out={tmp_path}"])
    emptied(tmp_path / "study.db")
    with monkeypatch.context() as patch:
        patch.setattr(recovery, "_copy_seconds", lambda plan, study: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            tune.main([*tiny, "trials=2", "aside=true", f"out={tmp_path}"])
    assert tune.main([*tiny, "trials=2", "aside=true", f"out={tmp_path}"]) == 0
    assert states(study_of(tmp_path)) == ["COMPLETE"] * 2


def test_a_value_that_the_space_does_not_have_is_not_put_on_a_command_line(tiny, tmp_path, capsys):
    tune.main([*tiny, "trials=2", f"out={tmp_path}"])
    emptied(tmp_path / "study.db")
    config = min((tmp_path / "trials").glob("*/config.yaml"))
    config.write_text(re.sub(r"\n  lr: .*", "\n  lr: ${oc.env:HOME}", config.read_text()))
    assert tune.main([*tiny, "trials=2", "aside=true", f"out={tmp_path}"]) == 0
    told = capsys.readouterr().err
    assert f"{config.parent} is left out of the new study" in told
    assert "left out 1" in told


def accuracy_of(val: object) -> dict[str, object]:
    return {"accuracy": {"direction": "max", "unit": "fraction", "val": val, "test": None}}


@pytest.mark.slow
def test_records_that_are_none_are_left_out_and_no_folder_makes_a_study_of_endless_trials(tiny, tmp_path, capsys):
    tune.main([*tiny, "trials=4", f"out={tmp_path}"])
    emptied(tmp_path / "study.db")
    folders = sorted(path.parent for path in (tmp_path / "trials").glob("*/run.json"))
    for folder, damage in zip(
        folders, ({"metrics": accuracy_of("x")}, {"energy": []}, {"metrics": accuracy_of(10**400)}), strict=False
    ):
        (folder / "run.json").write_text(json.dumps(json.loads((folder / "run.json").read_text()) | damage))
    curve = folders[3] / "metrics.jsonl"
    curve.write_text(re.sub(r'"passes": [^,]*', '"passes": Infinity', curve.read_text()))
    shutil.copytree(folders[0], tmp_path / "trials" / "99999999999")
    shutil.copytree(folders[0], tmp_path / "trials" / ("9" * 200))
    assert tune.main([*tiny, "trials=4", "aside=true", f"out={tmp_path}"]) == 0
    told = capsys.readouterr().err
    assert "by their records 1, to go on from where they stopped 0, left out 3" in told
    assert len(study_of(tmp_path).trials) < 20


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_no_worker_is_taken_for_dead(tmp_path, monkeypatch, number):
    (tmp_path / "0000.lock").touch()
    assert search._abandoned(tmp_path / "0000")
    (tmp_path / "0000.lock").touch()

    def fails(self, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", fails)
    assert not search._abandoned(tmp_path / "0000")
