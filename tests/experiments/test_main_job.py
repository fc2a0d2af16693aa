"""experiments/main_job/train.py, which stands outside the package."""

import json
from pathlib import Path

import pytest

from localearn.cli.errors import run_command
from tests.helpers.programs import program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def train():
    return program("main_job/train.py")


def test_the_committed_table_is_that_of_the_committed_records_and_stands_in_the_readme(train, monkeypatch):
    monkeypatch.chdir(ROOT)
    table = train.tabled()
    assert table == Path("results/main_job/table.md").read_text(encoding="utf-8")
    assert table in Path("experiments/main_job/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("argument", "said"),
    [("only=digit-mono_forward", "did you mean 'digits-mono_forward'"), ("seed=1", "did you mean 'seeds'"),
     ("seeds=a", "whole numbers"), ("only", "no option 'only'")],
)  # fmt: skip
def test_wrong_words_are_told(train, capsys, argument, said):
    assert run_command(train.main, [argument]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_row_is_run_once_and_its_wall_clock_is_that_of_the_whole_command(train, monkeypatch, tmp_path, capfd):
    row = train.Row("small", "dataset.train_size=100 net.widths=[4] epochs=1 progress=false energy.enabled=false", 0.01)
    lost = train.Row("lost", "algo=nonsense")
    monkeypatch.setattr(train, "ROWS", (lost, row))
    monkeypatch.setattr(train, "RESULTS", tmp_path)
    assert train.main(["seeds=0"]) == 2
    assert "lost-0: status 2" in capfd.readouterr().err
    folder = tmp_path / "runs" / "small-0"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "metrics.jsonl", "run.json", "wall.json"]
    whole_s = json.loads((folder / "wall.json").read_text())["wall_s"]
    train_s = json.loads((folder / "run.json").read_text())["train_s"]
    assert whole_s > train_s
    table = (tmp_path / "table.md").read_text()
    assert "| lost | `algo=nonsense` | not run |" in table and f"| small | `{row.options}` | 0 |" in table

    (folder / "wall.json").unlink()  # as of a run that was interrupted
    (folder / "checkpoint.pt").write_bytes(b"half")
    assert train.main(["only=small", "seeds=0"]) == 0
    assert not (folder / "checkpoint.pt").exists() and (folder / "wall.json").exists()
    before = (folder / "run.json").stat().st_mtime_ns
    assert train.main(["only=small", "seeds=0"]) == 0
    assert (folder / "run.json").stat().st_mtime_ns == before
