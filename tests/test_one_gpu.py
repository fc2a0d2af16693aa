"""The command for a GPU, tried with small nets where there is none."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localearn.doorway import run_door
from localearn.errors import UserError

MEASURE = Path(__file__).parents[1] / "experiments" / "one_gpu" / "measure.py"


def measured(*arguments):
    environment = os.environ | {"PYTHONPATH": str(MEASURE.parents[2])}
    return subprocess.run(
        [sys.executable, str(MEASURE), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )


def test_a_part_is_measured_once_and_every_line_is_told(tmp_path):
    asked = ["small=true", "device=cpu", f"out={tmp_path}", "only=bf16,study"]
    first = measured(*asked)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("$ python -m localearn") == 2
    lines = json.loads((tmp_path / "asked.json").read_text())["lines"]
    told = {line["part"]: line["measured"] for line in lines}
    assert told["bf16"].endswith(" %") and told["study"].endswith("(off)") and told["meter"] is None
    assert len([line for line in lines if line["measured"] is None]) == 7
    page = (tmp_path / "asked.md").read_text()
    assert "say nothing of a device" in page and "| not run |" in page and "met" not in page.replace("meter", "")
    again = measured(*asked)
    assert again.returncode == 0 and "$ python" not in again.stdout


@pytest.fixture
def measure():
    spec = importlib.util.spec_from_file_location("measure", MEASURE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["measure"]


@pytest.mark.parametrize(
    ("argument", "said"),
    [("only=step", "did you mean 'steps'"), ("ony=steps", "did you mean 'only'"), ("steps", "as key=value"),
     ("small=perhaps", "small"), ("device=cuda:77", "cuda:77")],
)  # fmt: skip
def test_wrong_words_are_told(argument, said, measure, tmp_path, capsys):
    assert run_door(measure.main, [argument, f"out={tmp_path / 'none'}"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_is_told(measure, capsys):
    assert run_door(measure.main, ["small=true", "device=cpu", "out=/proc/none"]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_what_was_interrupted_is_measured_anew(measure, tmp_path, monkeypatch):
    asked, ran = measure.Asked(tmp_path, "cpu", measure.SMALL), []

    def bench(command, check):
        folder = tmp_path / "part"
        assert not folder.exists(), "what was left is gone"
        folder.mkdir()
        (folder / "bench.json").touch()
        ran.append(command)
        return subprocess.CompletedProcess(command, 130 if len(ran) == 1 else 0)

    monkeypatch.setattr(measure.subprocess, "run", bench)
    with pytest.raises(UserError, match=r"status 130 of: python -m localearn\.bench"):
        measure.run(asked, asked.bench("part"))
    measure.run(asked, asked.bench("part"))
    measure.run(asked, asked.bench("part"))
    assert len(ran) == 2


def test_a_step_that_was_not_captured_meets_nothing(measure, tmp_path):
    ours = {"algo": "mono_forward", "captured": "off", "ratio": {"median": 0.5}}
    rules = [{"algo": "backprop", "captured": "graph"}, ours]
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "done").touch()
    found = {"benches": [{"width": 8, "batch": 4, "rules": rules}]}
    (tmp_path / "steps" / "bench.json").write_text(json.dumps(found))
    asked = measure.Asked(tmp_path, "cpu", measure.ASKED)
    (line,) = measure.steps(asked)
    assert (line.measured, line.met) == ("0.500, not captured", False)
    ours["captured"] = "graph"
    (tmp_path / "steps" / "bench.json").write_text(json.dumps(found))
    assert measure.steps(asked)[0].met
    measure.write(asked, measure.steps(asked))
    assert "| 0.500 | met |" in (tmp_path / "asked.md").read_text()
