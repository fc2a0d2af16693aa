"""Sweeps whose runs are processes of a launcher's."""

import json
import subprocess
import sys

import pytest

from tests.helpers.processes import environment

pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

TINY = (
    "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "dataset=digits", "dataset.train_size=100",
    "net.widths=[8]", "epochs=1", "progress=false", "energy.enabled=false",
)  # fmt: skip


def sweep(folder, *arguments):
    command = [sys.executable, "-m", "localearn.run", *TINY, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
def test_runs_at_once_have_folders_of_their_own(tmp_path):
    ended = sweep(tmp_path, "optim.lr=0.01,0.02")
    assert ended.returncode == 0, ended.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json")]
    assert sorted(record["config"]["optim"]["lr"] for record in records) == [0.01, 0.02]
    assert all(record["status"] == "completed" for record in records)


@pytest.mark.slow
def test_the_exit_status_tells_of_a_run_that_diverged(tmp_path):
    ended = sweep(tmp_path, "optim=sgd", "optim.lr=0.01,1e30")
    assert ended.returncode == 3, ended.stderr
    assert "diverged" in ended.stderr
    assert "Traceback" not in ended.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/run.json")]
    assert sorted(record["status"] for record in records) == ["completed", "diverged"], "the other went on"
