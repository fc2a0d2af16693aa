"""The results' rows: each figure is its record's, and each committed run is in one row."""

import json
import re

import pytest
import site_results
from site_repository import ROOT

from localearn.records import Record

ROWS = site_results.rows()


def made(figures, metric="accuracy", **fields):
    """A row of runs that ended with these figures."""
    runs = []
    for seed, figure in enumerate(figures):
        record = Record(seed=seed, **fields)
        unit = "fraction" if metric == "accuracy" else "value"
        record.metrics = {metric: {"direction": "max", "unit": unit, "val": None, "test": figure}}
        runs.append(site_results.Run(f"results/x/{seed}", record))
    return site_results.Row("x", "x", "r", "d", "n", "classes", metric, "title", runs=runs)


def test_every_result_is_in_exactly_one_row():
    folders = [run.folder for row in ROWS for run in row.runs]
    committed = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "results").rglob("run.json")}
    results = {folder for folder in committed if not site_results.LEFT_OUT & set(folder.split("/"))}
    assert len(folders) == len(set(folders)) and set(folders) == results


def test_the_studies_means_are_those_of_their_tables():
    for study in ("fidelity", "tasks", "long_memory"):
        entries = json.loads((ROOT / "results" / study / "table.json").read_text(encoding="utf-8"))
        found = {row.name: row for row in ROWS if row.study == study}
        assert found.keys() == {entry["name"] for entry in entries}
        for entry in entries:
            figures = found[entry["name"]].figures
            if entry["mean"] is not None:
                assert sum(figures) / len(figures) == pytest.approx(_shown(entry))
            assert found[entry["name"]].published == entry["published"]


def _shown(entry):
    metric = entry.get("metric") or {"name": "accuracy"}
    return entry["mean"] * (100 if metric["name"] == "accuracy" and entry["mean"] <= 1 else 1)


def test_a_mean_has_the_digits_that_its_interval_has_a_use_for():
    assert site_results.measured(made([0.97, 0.98, 0.99])) == "98.0 ± 2.5 %"
    assert site_results.measured(made([0.97])) == "97.00 %"
    assert site_results.measured(made([4.0, 4.0], "rmse")) == "4 ± 0"
    assert site_results.measured(made([None])) == "diverged"
    assert site_results.measured(made([])) == "not run"


def test_joules_of_unlike_labels_have_no_mean():
    row = made([0.9, 0.9])
    row.runs[0].record.energy = {"label": "measured", "train_j": 1.0}
    row.runs[1].record.energy = {"label": "measured", "train_j": 3.0}
    assert row.energy() == (2.0, "measured") and site_results.joules(row.energy()) == "2 J measured"
    row.runs[1].record.energy = {"label": "estimated", "train_j": 3.0}
    assert row.energy() is None and site_results.joules(None) == "absent"
    row.runs[1].record.energy = {"label": "measured", "train_j": None}
    assert row.energy() is None


def test_machines_are_named():
    assert site_results.machine({"type": "cpu", "name": "AMD EPYC", "threads": 1}) == "AMD EPYC, 1 thread"
    assert site_results.machine({"type": "cuda", "name": "NVIDIA H200", "threads": None}) == "NVIDIA H200"


def test_each_figure_of_the_page_links_to_its_records():
    table = site_results.results_table("results.md")
    linked = re.findall(r'href="repository/(results/[^"]+/run\.json)"', table)
    assert sorted(linked) == sorted(site_results.record_files()) and all((ROOT / path).is_file() for path in linked)
    assert "../repository/results/fidelity/runs/" in site_results.rule_table("mono_forward", "rules/mono_forward.md")
    matrix = site_results.defaults_matrix("results.md")
    assert 'href="repository/results/defaults/runs/digits-mlp-cafo/run.json"' in matrix


def test_what_was_not_run_says_so():
    (row,) = (row for row in ROWS if row.name == "cifar10_resnet20-backprop")
    assert not row.runs and row.rule == "backprop" and row.data == "cifar10" and row.net == "resnet20"
    assert site_results.measured(row) == "not run" and row.published == 91.37
