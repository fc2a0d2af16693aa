"""experiments/energy_study/study.py, which stands outside the package."""

import json
import shlex
from pathlib import Path

import pytest

from localearn import cli
from localearn.cli import compare
from localearn.cli.errors import run_command
from localearn.trainers import Solve
from localearn.training.experiment import build
from tests.helpers.programs import program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study():
    return program("energy_study/study.py")


def overrides_of(command):
    """Return what a localearn.tune command says of a run."""
    return [word for word in command[3:] if word.partition("=")[0] not in ("trials", "out")]


def on_digits(overrides):
    """Return the same rule and net on data that is always there."""
    return [*(o for o in overrides if not o.startswith("dataset")), "dataset=digits", "dataset.train_size=20"]


@pytest.mark.slow
def test_a_rule_and_its_baseline_are_tuned_alike_and_can_be_compared(study):
    for row in study.ROWS:
        *tunes, comparison = row.commands(Path("out"), 20, [0, 1, 2], [])
        configs = [cli.compose(overrides_of(command))[0] for command in tunes]
        assert all(configs[0][key] == configs[1][key] for key in compare.ALIKE), row.name
        net = cli.compose(overrides_of(tunes[0]))[1]["net"]
        trainers = [build(*cli.compose([*on_digits(overrides_of(command)), f"net={net}"]))[1] for command in tunes]
        passes = [
            sum(1 if isinstance(phase, Solve) else config.epochs for phase in trainer.phases())
            for config, trainer in zip(configs, trainers, strict=True)
        ]
        assert passes[0] == passes[1], f"{row.name}: a trial's passes"
        epochs = int(dict(word.split("=", 1) for word in comparison[3:])["epochs"])
        assert compare._shared_out(row.name, epochs, trainers[1].phases()), row.name


def test_published_numbers_stand_with_each_row(study):
    for row in study.ROWS:
        rule, baseline = row.published.accuracy
        assert 20 < rule < 100 and (baseline is None or 20 < baseline < 100)
    assert len({row.name for row in study.ROWS}) == len(study.ROWS)


def test_a_row_is_three_commands(study, capsys):
    assert study.main(["print=true", "only=mnist-mono_forward", "device=cuda"]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in lines] == ["localearn.tune", "localearn.tune", "localearn.compare"]
    assert all("device=cuda" in line for line in lines)
    tuned = {f"out={Path(word.removeprefix('tuned='), algo)}" for word in lines[2] if word.startswith("tuned=")
             for algo in ("backprop", "mono_forward")}  # fmt: skip
    assert {line[-1] for line in lines[:2]} == tuned


@pytest.mark.parametrize("argument", ["only=mnist", "trials=few", "trials=0", "seeds=x", "print=yes", "nonsense"])
def test_a_wrong_word_is_told(study, capsys, argument):
    assert run_command(study.main, ["print=true", argument]) == 2
    assert repr(argument.rpartition("=")[2]) in capsys.readouterr().err


def test_the_readme_shows_the_commands_that_are_run(study):
    readme = (ROOT / "experiments" / "energy_study" / "README.md").read_text()
    shown = [shlex.split(line) for line in readme.splitlines() if line.startswith("python -m localearn.")]
    (row,) = [row for row in study.ROWS if row.name == "mnist-mono_forward"]
    assert shown == row.commands(Path("energy_study"), 20, [0, 1, 2], [])


def test_what_is_not_run_says_so(study, tmp_path):
    study.write_table(tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert table.count("| not run |") == len(study.ROWS)
    assert "| 62.34 | 61.13 | +1.21 | ×0.66 | ×0.59 (measured) | ×0.95 | – |" in table
    assert {row["ours"] for row in json.loads((tmp_path / "table.json").read_text())} == {"not run"}


@pytest.mark.slow
def test_a_row_is_tuned_compared_and_tabled(study, tmp_path):
    shared = "dataset=digits dataset.train_size=100 net.widths=[4] batch_size=50 energy.idle_s=0"
    row = study.Row("digits", "mono_forward", shared, study.Published((97.0, 96.0)), "algo.schedule=greedy",
                    tuning=(1, 1), compare="epochs=2 patience=1 max_epochs=2 warm_up=false")  # fmt: skip
    asked = [f"out={tmp_path}", "trials=2", "seeds=[0,1]", "progress=false"]
    assert study.main(asked, (row,)) == 0
    table = (tmp_path / "table.md").read_text()
    assert "| digits | published | 97.00 | 96.00 | +1.00 |" in table
    assert "| ours, matched |" in table and "| ours, converged |" in table and "(estimated)" in table
    (values,) = json.loads((tmp_path / "table.json").read_text())
    measure = values["ours"]["matched"]["train_s"]["rule"]
    report = json.loads((tmp_path / "digits" / "report.json").read_text())
    matched = next(group for group in report["groups"] if group["protocol"] == "matched")
    assert measure == matched["rules"][1]["measures"]["train_s"]
    assert not list(tmp_path.rglob("net.safetensors")) and not list(tmp_path.rglob("checkpoint.pt"))
