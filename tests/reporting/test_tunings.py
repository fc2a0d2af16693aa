import json
from typing import Any

import pytest

from localearn.reporting import read_runs, read_tunings, write_report

ESTIMATED = {"energy_j": 5200.0, "label": "estimated", "source": "codecarbon", "part": "cpu"}


def search(algo: str = "backprop", count: int = 3, **changes: Any) -> dict[str, Any]:
    """Return a decoded tune.json whose last trial was pruned and whose first was the best."""
    made = [
        {
            "number": number,
            "state": "pruned" if number == count - 1 else "complete",
            "params": {"optim.lr": 0.00123456, "algo.noise": "gaussian"},
            "values": [0.98],
            "algo": algo,
            "dataset": "digits",
            "net": "mlp_2x256",
            "val_accuracy": 0.9812 - number / 100,
            "train_s": 10.0,
        }
        for number in range(count)
    ]
    record = {
        "schema": 1,
        "trials": made,
        "best": [0],
        "tuning": {"energy": [ESTIMATED]},
        "sampler": "tpe",
        "pruner": "median",
    }
    return record | changes


def write_search(top, record, name):
    folder = top / name
    folder.mkdir(parents=True)
    (folder / "tune.json").write_text(json.dumps(record))
    return folder


def test_what_a_search_found_and_cost_is_read(tmp_path):
    write_search(tmp_path, search(), "tuned/backprop")
    (tuning,) = read_tunings([tmp_path]).tunings
    assert (tuning.algo, tuning.dataset, tuning.net) == ("backprop", "digits", "mlp_2x256")
    assert (tuning.ended, tuning.trials) == (3, {"complete": 2, "pruned": 1})
    assert (tuning.val, tuning.train_s) == (0.9812, 30.0)
    assert {str(reading): joules for reading, joules in tuning.joules.items()} == {"estimated, codecarbon, cpu": 5200.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2 is unknown"),
        ({"best": []}, "no trial of it completed"),
        ({"best": [7]}, "no trial of it completed"),
        ({"trials": "many"}, "trials is no list of objects"),
        ({"tuning": {"energy": [ESTIMATED | {"energy_j": "much"}]}}, "energy_j is 'much'"),
        ({"tuning": {"energy": [ESTIMATED | {"label": "guessed"}]}}, "label is 'guessed'"),
        ({"sampler": None}, "sampler is missing"),
    ],
)
def test_a_search_that_cannot_be_read_is_noted(tmp_path, change, said):
    write_search(tmp_path, search(**change), "bad")
    write_search(tmp_path, search(), "good")
    tunings = read_tunings([tmp_path])
    assert [tuning.folder for tuning in tunings.tunings] == [f"{tmp_path.name}/good"]
    (note,) = tunings.notes
    assert note.startswith(f"{tmp_path.name}/bad/tune.json was skipped") and said in note


def test_a_report_has_a_line_for_each_search_and_notes_unequal_ones(tmp_path, factory):
    for algo in ("backprop", "mono_forward"):
        factory.write_run(tmp_path / "runs", factory.record(algo))
    write_search(tmp_path, search("backprop"), "tuned/backprop")
    write_search(tmp_path, search("mono_forward", count=2), "tuned/mono_forward")
    write_report(read_runs([tmp_path / "runs"]), tmp_path / "out", tunings=read_tunings([tmp_path / "tuned"]))
    page, report = (
        (tmp_path / "out" / "report.md").read_text(),
        json.loads((tmp_path / "out" / "report.json").read_text()),
    )
    assert "## Tuning" in page and "2 completed, 1 pruned" in page and "optim.lr = 0.00123" in page
    assert "5.2 kJ" in page or "5.200 kJ" in page
    assert [tuning["energy"] for tuning in report["tunings"]] == [[ESTIMATED], [ESTIMATED]]
    (note,) = [note for note in report["notes"] if "unequal" in note]
    assert "backprop 3 trials (tpe, median); mono_forward 2 trials" in note


def test_joules_that_are_not_known_in_full_are_no_number(tmp_path, factory):
    factory.write_run(tmp_path / "runs", factory.record())
    write_search(tmp_path, search(tuning={"energy": [ESTIMATED | {"energy_j": None}]}), "tuned")
    write_report(read_runs(tmp_path / "runs"), tmp_path / "out", tunings=read_tunings([tmp_path / "tuned"]))
    assert "energy not known in full" in (tmp_path / "out" / "report.md").read_text()


def test_a_searchs_trials_are_no_runs_of_a_comparison(tmp_path, factory):
    factory.write_run(tmp_path / "runs", factory.record())
    factory.write_run(
        write_search(tmp_path, search(), "tuned/backprop") / "trials", factory.record(seed=5), name="0000"
    )
    assert [run.record.seed for run in read_runs(tmp_path)] == [0]
    assert [run.record.seed for run in read_runs(tmp_path / "tuned" / "backprop" / "trials")] == [5]
