"""A trial whose joules are not known in part: no partial sum, and no end of the study."""

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from optuna import TrialPruned
from optuna.trial import FixedTrial

from localearn import cli
from localearn.cli.tune import parse
from localearn.errors import UserError
from localearn.records import Figures, Record, RunFolder
from localearn.tuning.outcome import spent
from localearn.tuning.trial import QUIET, run_trial


def record(train_j: float | None, label: str = "measured") -> Record:
    """Return what a completed run leaves, as far as a trial looks at it."""
    part = None if label == "absent" else "gpu"
    windows = {"train": {"energy_j": train_j}, "eval": {"energy_j": 5.0}}
    energy = {"label": label, "source": "nvml", "part": part, "train_j": train_j, "flags": ["source_lost"]}
    return Record(
        algo="backprop",
        dataset="digits",
        net="mlp",
        status="completed",
        config={"out": "x"},
        metrics={"accuracy": Figures(direction="max", unit="fraction", val=0.9, test=None)},
        passes=1.0,
        train_s=1.0,
        energy=energy | {"parts": {"gpu": {"label": label, "windows": windows}}},
    )


@pytest.fixture
def tried(tiny, tmp_path):
    """Take in a trial whose run, done before, left this record; return its values and what the study remembers."""

    def enter(made: Record, *options: str) -> tuple[list[float], dict[str, Any]]:
        trial: Any = FixedTrial({})
        plan = parse([*tiny, *options, f"out={tmp_path / 'study'}"])
        folder = RunFolder(tmp_path / "trial")
        folder.create()
        config, _ = cli.compose([*plan.overrides, *QUIET, f"out={folder.path}"])
        folder.write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
        folder.write_text(folder.record, made.to_json())
        try:
            return run_trial(trial, plan, {}, tmp_path / "trial"), trial.user_attrs
        finally:
            enter.remembered = trial.user_attrs

    return enter


def test_known_joules_are_added_over_the_windows(tried):
    values, remembered = tried(record(10.0))
    assert values == [0.9]
    assert remembered["energy_j"] == 15.0


def test_a_part_of_the_sum_is_not_the_sum(tried):
    values, remembered = tried(record(None))
    assert values == [0.9]
    assert remembered["energy_j"] is None


def test_a_trial_without_its_joules_ends_alone_where_they_are_the_objective(tried):
    with pytest.raises(TrialPruned, match="not known: source_lost"):
        tried(record(None), "objective=accuracy_energy")
    assert tried.remembered["val_accuracy"] == 0.9


def test_a_machine_without_joules_ends_the_study_where_they_are_the_objective(tried):
    with pytest.raises(UserError, match="use objective=accuracy"):
        tried(record(None, "absent"), "objective=accuracy_energy")


def test_the_joules_of_a_search_are_not_known_where_those_of_a_trial_are_not():
    def trial(joules: float | None, label: str) -> Any:
        energy = {"label": label, "source": label, "part": "cpu"}
        return SimpleNamespace(user_attrs={"energy_j": joules, "energy": energy})

    known = [trial(1.0, "estimated"), trial(2.0, "estimated"), trial(None, "absent"), SimpleNamespace(user_attrs={})]
    assert spent(known) == {("estimated", "estimated", "cpu"): 3.0}
    lost = [trial(4.0, "measured"), trial(None, "measured"), trial(8.0, "measured")]
    assert spent([*known, *lost]) == {("estimated", "estimated", "cpu"): 3.0, ("measured", "measured", "cpu"): None}
