"""experiments/graph_time and experiments/defaults/local_loss.py, which stand outside the package."""

import json
from pathlib import Path

import pytest

import localearn
from tests.helpers.programs import program

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_all_forms_are_timed_in_turns(tmp_path, monkeypatch, capsys):
    timed = program("graph_time/graph_time.py")
    monkeypatch.setattr(timed, "WIDTH", 8)
    timed.main(["dataset=karate", "turns=2", f"out={tmp_path}"])
    found = json.loads((tmp_path / "times.json").read_text())
    assert set(found) == {"2", "4"} and set(found["4"]) == {"backprop", *timed.FORMS}
    assert all(len(seconds) == 2 for of_rule in found["2"].values() for seconds in of_rule.values())
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if "| backprop |" in line]
    assert len(rows) == 2 and all(row.endswith("| 1.00 |") for row in rows)


def test_the_table_of_the_recipes_of_local_losses_is_of_the_records(monkeypatch):
    monkeypatch.chdir(ROOT)
    probes = program("defaults/local_loss.py")
    assert probes.table() == Path("results/defaults/local_loss.md").read_text(encoding="utf-8")
    accuracy = {line.split("optim.lr=")[1].split("`")[0]: float(line.split(" | ")[3].split()[0])
                for line in probes.table().splitlines() if line.startswith("| dense")}  # fmt: skip
    recipe = localearn.recipe("local_loss", "dense")["fit"]["optim"].keywords["lr"]
    assert recipe == float(max(accuracy, key=lambda lr: accuracy[lr]))
