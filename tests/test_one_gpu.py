"""The command for a GPU, tried with small nets where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("argument", "said"),
    [("only=step", "did you mean 'steps'"), ("ony=steps", "did you mean 'only'"), ("steps", "as key=value"),
     ("small=perhaps", "small")],
)  # fmt: skip
def test_wrong_words_are_told(argument, said, tmp_path):
    done = measured(argument, f"out={tmp_path / 'none'}")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()
