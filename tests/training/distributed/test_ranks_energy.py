"""Joules of ranks: each meters itself, and the run's are their sum."""

import json

import pytest

ASKED = ["-m", "localearn.run", "dataset=digits", "dataset.train_size=200", "net.widths=[12,10]", "batch_size=20",
         "progress=false", "parallel=data", "out=run"]  # fmt: skip

# A rule whose second rank works twenty times as hard, may be killed, and leaves what it told last.
UNEVEN = """
import json, os, signal
from localearn import Backprop
from localearn.energy import Meter

state = Meter.state

def told(meter):
    found = state(meter)
    with open(f"told-{os.environ['RANK']}.json", "w") as file:
        json.dump(found, file)
    return found

Meter.state = told

class Uneven(Backprop):
    def gradients(self, batch):
        self.taken = getattr(self, "taken", 0) + 1
        if os.environ["RANK"] == "1" and self.taken == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(20 if os.environ["RANK"] == "1" else 1):
            self.zero_grad(set_to_none=True)
            metrics = super().gradients(batch)
        return metrics
"""


@pytest.fixture
def uneven(tmp_path):
    def rule(killed_at):
        (tmp_path / "uneven.py").write_text(UNEVEN.replace("KILLED_AT", str(killed_at)))
        return [*ASKED, "algo._target_=uneven.Uneven"]

    return rule


def joules_by_epoch(folder):
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train_j"] for line in lines]


def test_a_runs_joules_are_those_of_all_ranks(uneven, launch, tmp_path, door, monkeypatch):
    done = launch(2, *uneven(None), "epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    energy = record["energy"]
    assert (energy["label"], energy["part"], energy["flags"]) == ("estimated", "cpu", [])
    window = energy["parts"]["cpu"]["windows"]["train"]
    assert window["energy_j"] == energy["train_j"] and window["segments"] % 2 == 0
    joules = joules_by_epoch(tmp_path)
    assert joules == sorted(joules) and joules[-1] == energy["train_j"]
    others_j = json.loads((tmp_path / "told-1.json").read_text())["parts"]["cpu"]["windows"]["train"]["energy_j"]
    assert 0 < energy["train_j"] - others_j < others_j


def test_joules_of_a_run_that_lost_a_rank_are_null(uneven, launch, tmp_path):
    ended = launch(2, *uneven(45), "epochs=5", cwd=tmp_path)
    assert ended.returncode
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed" and record["energy"]["train_j"] is None
    assert "rank_lost" in record["energy"]["flags"]
    again = launch(
        2, "-m", "localearn.run", "resume=run", "trust=uneven.Uneven", cwd=tmp_path
    )  # whose joules are known
    assert again.returncode == 0, again.stderr[-2000:]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "completed"
    joules = joules_by_epoch(tmp_path)
    assert len(joules) == 5 and joules == sorted(joules) and joules[-1] == record["energy"]["train_j"] > 0
    assert joules[4] < 1.9 * joules[3], "what was spent before is added once, not by each rank"
