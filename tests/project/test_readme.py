"""What the README shows is what happens, and what the pages show that it sends its readers to."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from localearn import cli
from localearn.records import read_record
from localearn.training.experiment import execute

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def page(name: str) -> str:
    """Return the text of one of the pages of docs/howto."""
    return (ROOT / "docs" / "howto" / name).read_text(encoding="utf-8")


def python(text: str) -> list[str]:
    """Return the blocks of Python that a page has."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_library_use_gives_the_accuracy_it_shows(capsys):
    code = next(block for block in python(README) if "record" in block)
    shown = re.search(r"Record\(.*test_accuracy=([\d.]+)", README)
    assert shown
    exec(compile(code, "README.md", "exec"), {})
    got = re.search(r"test_accuracy=([\d.]+)", capsys.readouterr().out)
    assert got
    assert abs(float(got[1]) - float(shown[1])) <= 0.02, "another machine's rounding moves a digit or two of 359"


def test_the_recipe_in_python_is_the_run_of_the_command(tmp_path):
    code = next(block for block in python(page("python.md")) if "localearn.recipe(" in block)
    command = re.search(r"the very run of (algo=\w+) (dataset=\w+)", code)
    assert command
    found = {}
    exec(compile(code, "python.md", "exec"), {}, found)
    config, choices = cli.compose(
        [*command.groups(), "progress=false", "energy.enabled=false", f"out={tmp_path / 'run'}"]
    )
    run = execute(config, choices)
    called = found["record"]
    assert (called.passes, called.test_loss, called.history[-1]["train_loss"]) == (
        run.passes,
        run.test_loss,
        run.history[-1]["train_loss"],
    )


@pytest.mark.slow
def test_the_new_rule_is_short_whole_and_learns(tmp_path):
    code = next(block for block in python(README) if "# my_rules.py" in block)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 25
    (tmp_path / "my_rules.py").write_text(code, encoding="utf-8")
    (rule,) = (node.name for node in ast.parse(code).body if isinstance(node, ast.ClassDef))
    assert f"algo._target_=my_rules.{rule}" in README
    command = [sys.executable, "-m", "localearn.run", f"algo._target_=my_rules.{rule}", "epochs=10", "progress=false"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"test accuracy ([\d.]+) %", done.stdout)
    assert accuracy
    assert float(accuracy[1]) > 85, done.stdout


def test_the_new_task_is_short_whole_and_learned(capsys):
    text = page("add-task.md")
    code = next(block for block in python(text) if "# my_tasks.py" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    shown = re.search(r"\{'loss': ([-\d.]+), 'nll': ([-\d.]+), 'mae': ([-\d.]+)\}", text)
    assert shown
    there: dict[str, Any] = {"__name__": "my_tasks"}
    exec(compile(code, "README.md", "exec"), there)
    got = re.search(r"\{'loss': ([-\d.]+), 'nll': ([-\d.]+), 'mae': ([-\d.]+)\}", capsys.readouterr().out)
    assert got
    for ours, theirs in zip(got.groups(), shown.groups(), strict=True):
        assert abs(float(ours) - float(theirs)) <= 0.05, "another machine's rounding moves the last digits"
    y = there["data"].batches("test", 1000)
    counts = next(y).target
    constant = there["Counts"]().mean_loss(counts.mean().log().expand_as(counts), counts)
    assert float(got[1]) < float(constant) - 0.5, "it does better than the best constant"


def test_a_net_of_ones_own_modules_is_trained_and_comes_back(tmp_path, monkeypatch):
    code = next(block for block in python(page("add-net.md")) if "Net.from_blocks(" in block)
    monkeypatch.chdir(tmp_path)
    there: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), there)
    assert there["net"].depth == 3 and there["net"].kind == "maps"
    record = read_record(tmp_path / "runs" / "my_net")
    accuracy = record.metric("accuracy", "test")
    assert accuracy is not None and accuracy > 0.85
    batch = next(there["data"].batches("test", 1000))
    with torch.no_grad():
        hits = there["net"](batch.x).argmax(1) == batch.target
    assert abs(hits.double().mean().item() - accuracy) < 1e-6


@pytest.mark.slow
def test_the_callback_is_called_and_stops(tmp_path):
    text = page("add-callback.md")
    code = next(block for block in python(text) if "# my_callbacks.py" in block)
    (tmp_path / "my_callbacks.py").write_text(code, encoding="utf-8")
    shown = re.search(r'localearn run "(callbacks=.*least:1e-6.*)"\n', text)
    assert shown
    few = ("dataset.train_size=100", "epochs=2", "progress=false", "energy.enabled=false")

    def run(entry: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "localearn.run", entry, *few]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run(shown[1])
    assert done.returncode == 0, done.stderr
    told = re.findall(r"gradients in epoch (\d):((?: [\d.e+-]+)+)\n", done.stdout)
    assert [epoch for epoch, _ in told] == ["1", "2"]
    assert all(float(norm) > 1e-6 for _, norms in told for norm in norms.split()), done.stdout
    stopped = run(shown[1].replace("1e-6", "1e6"))
    assert stopped.returncode == 3
    assert "stopped: a block's gradient is below 1e+06" in stopped.stderr


@pytest.mark.parametrize("name", ["main-job", "tests"])
def test_the_first_screen_has_the_commands_that_ci_runs(name):
    found = re.search(rf"<!-- command: {name} -->\n```\n(.+)\n```\n<!-- end -->", README)
    assert found
    assert README[: found.start()].count("\n") < 40
