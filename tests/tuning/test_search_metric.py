"""A search goes by its task's first metric, in that metric's direction."""

import json
from typing import Any

import pytest

from localearn.cli import run, tune
from localearn.cli.tune import parse
from localearn.errors import UserError
from localearn.reporting import read_tunings
from localearn.reporting.metrics import ACCURACY
from localearn.tasks import Classification, Regression
from tests.helpers.studies import study_of

VALUES = (
    "algo=backprop", "dataset=diabetes", "dataset.train_size=80", "net.widths=[4]", "epochs=2", "batch_size=40",
    "energy.enabled=false",
)  # fmt: skip
DAMAGE = b"no database" * 400


def test_a_regression_is_searched_for_its_least_rmse_and_the_same_command_goes_on(tmp_path, capsys):
    out = tmp_path / "out"
    assert tune.main([*VALUES, "trials=2", f"out={out}"]) == 0
    assert tune.main([*VALUES, "trials=3", f"out={out}"]) == 0
    said = capsys.readouterr().out

    study = study_of(out)
    assert [direction.name for direction in study.directions] == ["MINIMIZE"] and len(study.trials) == 3
    rmse = [trial.values[0] for trial in study.trials]
    best = study.trials[rmse.index(min(rmse))]
    assert len(set(rmse)) == 3 and best.user_attrs["val_rmse"] == min(rmse)
    told = json.loads((out / "tune.json").read_text())
    assert told["objective"] == "rmse" and told["best"] == [best.number]
    assert told["metric"] == {"name": "rmse", "direction": "min", "unit": "value"}
    assert f"best RMSE {min(rmse):.2f} (trial {best.number})" in said
    assert f"# validation RMSE {min(rmse):.2f}, trial {best.number}" in (out / "best.yaml").read_text()
    for text in (said, *(path.read_text() for path in (out / "best.yaml", out / "tune.json"))):
        assert "accuracy" not in text and "%" not in text

    assert run.main([f"config={out / 'best.yaml'}", f"out={tmp_path / 'run'}", "progress=false"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["metrics"]["rmse"]["val"] == min(rmse), "the same seed, the same options"
    (tuning,) = read_tunings([out]).tunings
    assert (tuning.metric.name, tuning.metric.direction, tuning.val) == ("rmse", "min", min(rmse))


@pytest.mark.slow
def test_a_pruner_is_shown_the_metric_and_a_new_database_the_same(tmp_path):
    arguments = [*VALUES, f"out={tmp_path}"]
    assert tune.main([*arguments, "trials=2"]) == 0
    before = study_of(tmp_path).trials
    for trial in before:
        lines = (tmp_path / "trials" / f"{trial.number:04d}" / "metrics.jsonl").read_text().splitlines()
        assert list(trial.intermediate_values.values()) == [json.loads(line)["val_rmse"] for line in lines]
    (tmp_path / "study.db").write_bytes(DAMAGE)
    assert tune.main([*arguments, "trials=2", "aside=true"]) == 0
    after = study_of(tmp_path).trials
    assert [trial.values for trial in after] == [trial.values for trial in before]
    assert [trial.intermediate_values for trial in after] == [trial.intermediate_values for trial in before]


@pytest.mark.slow
def test_a_trial_that_is_worse_by_its_rmse_is_pruned(tmp_path, capsys):
    """Six trials learn, a seventh does not: with the direction the other way round the median would keep it."""
    arguments = [*VALUES, "epochs=4", f"out={tmp_path}", "sampler=random"]
    learning, not_at_all = "tune.space.lr={low:0.01,high:0.03}", "tune.space.lr={low:1e-7,high:2e-7}"
    assert tune.main([*arguments, learning, "trials=6", "tune.space.weight_decay=null"]) == 0
    study = study_of(tmp_path)
    # The same study, with a range in which nothing is learned.
    search = study.user_attrs["search"]
    search["space"]["optim.lr"]["attributes"] |= {"low": 1e-7, "high": 2e-7}
    study.set_user_attr("search", search)
    assert tune.main([*arguments, not_at_all, "trials=7", "tune.space.weight_decay=null"]) == 0
    states = [trial.state.name for trial in study_of(tmp_path).trials]
    assert states[-1] == "PRUNED" and states[:6].count("COMPLETE") >= 5
    assert "validation RMSE" in capsys.readouterr().out.splitlines()[-3]


def test_of_a_regression_and_its_energy_the_front_begins_with_the_least(tmp_path):
    pytest.importorskip("codecarbon")
    energy = ["energy.enabled=true", "energy.idle_s=0", "energy.country=POL"]
    assert tune.main([*VALUES[:-1], *energy, "objective=mae_energy", "trials=3", f"out={tmp_path}"]) == 0
    study = study_of(tmp_path)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    told = json.loads((tmp_path / "tune.json").read_text())
    maes = [study.trials[number].values[0] for number in told["best"]]
    assert maes == sorted(maes) and told["metric"]["name"] == "mae"
    record = json.loads((tmp_path / "trials" / "0000" / "run.json").read_text())
    assert study.trials[0].values[0] == record["metrics"]["mae"]["val"]


@pytest.mark.parametrize(
    ("typed", "task", "objective"),
    [
        (None, Classification(3), "accuracy"),
        ("accuracy_energy", Classification(3), "accuracy_energy"),
        (None, Regression(), "rmse"),
        ("accuracy_energy", Regression(), "rmse_energy"),
        ("r2", Regression(), "r2"),
    ],
)
def test_the_objective_is_a_metric_of_the_task(typed, task: Any, objective, tmp_path):
    plan = parse([f"out={tmp_path}", *([f"objective={typed}"] if typed else [])]).for_task(task)
    assert plan.objective == objective and plan.metric == task.metric(objective.removesuffix("_energy"))
    assert plan.names_energy == objective.endswith("_energy")


@pytest.mark.parametrize(("typed", "task"), [("rmsse", Regression()), ("rmse", Classification(3))])
def test_another_objective_is_refused_with_those_that_there_are(typed, task, tmp_path):
    known = ", ".join(f"{m.name}, {m.name}_energy" for m in task.metrics)
    with pytest.raises(UserError, match=f"no objective '{typed}'.*there are {known}"):
        parse([f"out={tmp_path}", f"objective={typed}"]).for_task(task)


def test_a_classification_leaves_what_it_always_left(tiny, tmp_path):
    assert tune.main([*tiny, "trials=1", f"out={tmp_path}"]) == 0
    told = json.loads((tmp_path / "tune.json").read_text())
    assert list(told) == [
        "schema", "study", "trials", "best", "importance", "tuning", "overrides", "objective", "sampler", "pruner",
    ]  # fmt: skip
    (trial,) = told["trials"]
    assert (tmp_path / "best.yaml").read_text().startswith(f"# validation accuracy {100 * trial['val_accuracy']:.2f} %")
    assert read_tunings([tmp_path]).tunings[0].metric == ACCURACY
