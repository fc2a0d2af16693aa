import json
import subprocess
import sys
from pathlib import Path

import pytest

from localearn import cli
from localearn.cli import study
from localearn.errors import UserError
from localearn.records import read_record

ROW = """\
title: Digits, MLP, Mono-Forward
source: nobody
published: {published}
run: [algo=mono_forward, dataset=digits, dataset.train_size=150, "net.widths=[8]", epochs=2, progress=false]
seeds: [0, 1]
"""


def test_a_study_runs_what_is_missing_and_keeps_records_alone(tmp_path, capsys):
    folder, out = tmp_path / "small", tmp_path / "out"
    folder.mkdir()
    (folder / "one.yaml").write_text(ROW.format(published=10.0))
    (folder / "two.yaml").write_text(ROW.format(published="null"))
    assert study.main([str(folder), "only=one", f"out={out}", "energy.enabled=false"]) == 0
    runs = sorted(path.name for path in (out / "runs").iterdir())
    assert runs == ["one-0", "one-1"]
    assert sorted(path.name for path in (out / "runs" / "one-0").iterdir()) == [
        "config.yaml",
        "metrics.jsonl",
        "run.json",
    ]
    one, two = json.loads((out / "table.json").read_text())
    records = [read_record(out / "runs" / f"one-{seed}") for seed in (0, 1)]
    assert one["mean"] == pytest.approx(50 * sum(record.metrics["accuracy"]["test"] or 0.0 for record in records))
    assert one["verdict"] == "better"
    assert (two["mean"], two["verdict"]) == (None, "not run")
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")

    capsys.readouterr()
    assert study.main([str(folder), "only=one", f"out={out}", "energy.enabled=false"]) == 0
    assert capsys.readouterr().out.count("completed already; reused") == 2


@pytest.mark.slow
def test_two_processes_share_a_study_and_each_row_is_run_once(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.yaml").write_text(ROW.format(published="null"))
    command = [sys.executable, "-m", "localearn.study", "small", "out=out", "energy.enabled=false"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    trained = [line.split("/")[-1] for text in said for line in text.splitlines() if "passes, training" in line]
    assert sorted(trained) == [f"{name}-{seed}" for name in ("one", "three", "two") for seed in (0, 1)]
    assert all(len(row["seeds"]) == 2 for row in json.loads((tmp_path / "out" / "table.json").read_text()))
    assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == sorted(trained)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROW.format(published=1) + "publishd: 3\n", "did you mean 'published'"),
        ("title: A\n", "needs source, run"),
        ("title: [\n", "is not valid YAML"),
        ("- title\n", "a row is keys with values, title, source"),
        ("title: A\nsource: B\nrun: algo=backprop\n", "run must be a list of texts, not 'algo=backprop'"),
        ("title: A\nsource: B\nrun: []\nseeds: 3\n", "seeds must be a list of whole numbers, not 3"),
        ("title: A\nsource: B\nrun: []\npublished: high\n", "published must be a number or null, not 'high'"),
    ],
)
def test_a_wrong_row_is_told_with_its_file(tmp_path, text, said):
    (tmp_path / "row.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as error:
        study.read_rows(tmp_path)
    assert "row.yaml" in str(error.value)


def test_wrong_command_lines_are_told(tmp_path):
    with pytest.raises(UserError, match="holds no rows"):
        study.main([str(tmp_path)])
    (tmp_path / "one.yaml").write_text(ROW.format(published=1))
    for arguments, said in (
        ([str(tmp_path), "only=on"], "did you mean 'one'"),
        ([str(tmp_path), "seeds=[a]"], "whole numbers"),
        ([str(tmp_path / "nowhere")], "no such folder"),
        (["only=one"], "name one study's folder"),
    ):
        with pytest.raises(UserError, match=said):
            study.main(arguments)


@pytest.mark.slow
def test_every_row_of_the_fidelity_study_is_a_configuration():
    rows = study.read_rows(Path(__file__).parents[2] / "experiments" / "fidelity")
    assert len({row.title for row in rows}) == len(rows)
    for row in rows:
        cli.compose([*row.run, f"seed={row.seeds[0]}"])
