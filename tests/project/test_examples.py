"""Every example runs as it stands, in a folder of its own, and is short."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import environment

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SAID = {  # what each shows at the end
    "callback": "figures.csv: stage,epoch",
    "energy_of_your_loop": "kg CO2e",
    "export_and_serve": "rows",
    "gpt2": "bits_per_character",
    "new_rule": "RandomReadouts",
    "new_task": "nll",
    "own_arrays": "test accuracy",
    "own_module": "a fresh Mine()",
    "scikit_learn": "r2 of five folds",
    "sweep_and_report": "report.html",
    "text": "bits a character",
    "torchvision_resnet": "11,172,810 parameters",
}


def test_they_are_at_most_sixty_lines():
    assert {path.stem for path in EXAMPLES} == set(SAID)
    assert {path.stem: lines for path in EXAMPLES if (lines := path.read_text().count("\n")) > 60} == {}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_as_it_stands(path, tmp_path):
    own = environment(LOCALEARN_DATA=str(tmp_path / "data"))
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert SAID[path.stem] in done.stdout
