"""CONTRIBUTING.md's first page, followed to the letter in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("localearn", "tests", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", "conftest.py")
FILE = re.compile(r"^### `([^`]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## What a rule is made of")[0]
    return dict(FILE.findall(page))


@pytest.fixture(scope="module")
def copy(files, tmp_path_factory) -> Path:
    """Return the copy with the four files, after the one command."""
    folder = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    for name, text in files.items():
        assert not (folder / name).exists()
        (folder / name).write_text(text, encoding="utf-8")
    ran(folder, "docs/tools/site_rules.py")
    return folder


def ran(folder: Path, *command: str) -> str:
    """Return what a Python command prints in the copy, whose localearn it imports."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_there_are_four_files(files):
    assert [Path(name).parts[0] for name in files] == ["localearn", "localearn", "tests", "docs"]
    assert {Path(name).stem.removeprefix("test_") for name in files} == {"random_readouts"}


def test_the_rule_is_listed_and_learns(copy):
    assert "random_readouts             Random readouts: each block" in ran(copy, "-m", "localearn", "run", "--help")
    done = ran(copy, "-m", "localearn.run", "algo=random_readouts", "epochs=10", "energy.enabled=false", "out=run")
    accuracy = re.search(r"random_readouts on digits: test accuracy ([\d.]+) %", done)
    assert accuracy and float(accuracy[1]) > 85, done
    again = ran(copy, "-c", "import localearn; print(localearn.load_rule('run')[1])")  # its folder may name the class
    assert "RandomReadouts" in again


def test_the_rule_is_documented(copy):
    row = "| `random_readouts` | local " + "| yes " * 7 + "| [1711.06756]"
    assert row in (copy / "README.md").read_text("utf-8")
    assert "(random_readouts.md)" in (copy / "docs" / "rules" / "index.md").read_text("utf-8")
    assert "::: localearn.RandomReadouts" in (copy / "docs" / "api" / "rules.md").read_text("utf-8")
    assert "RandomReadouts as RandomReadouts" in (copy / "localearn" / "__init__.py").read_text("utf-8")


def test_the_tests_have_it_and_pass(copy):
    chosen = "random_readouts or RandomReadouts or every_rule or tables or written"
    passed = ran(
        copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen,
        "tests/trainers/local/test_random_readouts.py", "tests/trainers/test_readme_conformance.py",
        "tests/docs/test_rules_pages.py", "tests/test_defaults.py", "tests/project/test_import.py",
    )  # fmt: skip
    assert int(re.findall(r"(\d+) passed", passed)[0]) > 30, passed
