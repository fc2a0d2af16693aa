"""`import localearn` brings torch and numpy and nothing that is slow or may be missing."""

import subprocess
import sys
from pathlib import Path

import pytest

import localearn

SLOW = [
    "hydra",
    "omegaconf",
    "optuna",
    "codecarbon",
    "pynvml",
    "matplotlib",
    "rich",
    "torchvision",
    "torch_geometric",
    "sklearn",
    "scipy",
    "pandas",
    "PIL",
    "tensorboard",
    "safetensors",
    "yaml",
]


@pytest.fixture(scope="module")
def modules() -> tuple[set[str], set[str]]:
    """Return the top-level modules after `import torch, numpy` and after `import localearn`, in a fresh interpreter."""
    code = "import sys, torch, numpy; print(*sys.modules); import localearn; print(*sys.modules)"
    root = str(Path(localearn.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stderr == ""
    before, after = done.stdout.splitlines()
    return set(before.split()), set(after.split())


def test_nothing_slow_is_imported(modules):
    before, after = modules
    brought = {name.partition(".")[0] for name in after} - {name.partition(".")[0] for name in before}
    assert not brought & set(SLOW)


def test_of_other_packages_only_torch_and_numpy_are_needed(modules):
    before, after = modules
    brought = {name.partition(".")[0] for name in after - before}
    assert brought <= {"localearn", "torch", "numpy"} | set(sys.stdlib_module_names)


def test_torchs_compiler_is_not_loaded(modules):
    """It takes as long to import as torch itself."""
    _, after = modules
    assert "torch._dynamo" not in after
    assert "sympy" not in after


def test_every_public_name_is_there():
    assert all(hasattr(localearn, name) for name in localearn.__all__)
