"""`import localearn` brings itself alone, its names what they need, and none of it is slow or may be missing."""

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import localearn
from localearn import registry

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
PACKAGES = [
    "localearn",
    "localearn.data",
    "localearn.nets",
    "localearn.tasks",
    "localearn.trainers",
    "localearn.trainers.estimators",
    "localearn.trainers.feedback",
    "localearn.trainers.local",
    "localearn.trainers.paired",
]
# What each step of a script imports, in one interpreter.
STEPS = """
import sys
def step(): print(*sys.modules)
step()
import localearn
step()
import torch, numpy
step()
localearn.MonoForward, localearn.MLP, localearn.load
step()
assert not hasattr(localearn.Trainer, "_fit")
try: localearn.Backprop(localearn.MLP(4, 2, widths=(3,))).fit(None, epochs=0)
except localearn.UserError: pass
assert hasattr(localearn.Trainer, "_fit")
from localearn import *
step()
"""


@pytest.fixture(scope="module")
def brought() -> dict[str, set[str]]:
    """Return the modules that each step brings: localearn itself, torch and numpy, a first rule, and all names."""
    root = str(Path(localearn.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=False, cwd=root)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = [set(line.split()) for line in done.stdout.splitlines()]
    steps = ("itself", "torch", "a rule", "all")
    return {name: after - before for name, before, after in zip(steps, loaded, loaded[1:], strict=False)}


def test_localearn_itself_brings_no_module_but_its_own_registry_and_the_standard_library(brought):
    assert {name for name in brought["itself"] if name.startswith("localearn")} == {
        "localearn",
        "localearn.moved",
        "localearn.registry",
    }
    others = {name.partition(".")[0] for name in brought["itself"]} - {"localearn"}
    assert others <= set(sys.stdlib_module_names)


def test_a_rule_brings_no_other_rule_and_no_loop(brought):
    rules = {rule.module for rule in registry.rules().values()}
    assert brought["a rule"] & rules == {"localearn.trainers.local.mono_forward"}
    assert "localearn.nets.mlp" in brought["a rule"]
    assert not {
        name for name in brought["a rule"] if name.startswith(("localearn.training", "localearn.nets.denoiser"))
    }


def test_all_names_bring_all_rules_and_nothing_slow(brought):
    assert {rule.module for rule in registry.rules().values()} <= brought["a rule"] | brought["all"]
    packages = {name.partition(".")[0] for name in brought["a rule"] | brought["all"]}
    assert not packages & set(SLOW)
    assert packages <= {"localearn", "torch", "numpy"} | set(sys.stdlib_module_names)


def test_torchs_compiler_is_not_loaded(brought):
    """It takes as long to import as torch itself."""
    loaded = set().union(*brought.values())
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded
    assert "sympy" not in loaded


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_is_its_modules(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))
    for name, place in registry.exports(package).items():
        found = getattr(module, name)
        assert found is getattr(importlib.import_module(place), name), name
        assert found.__module__ == place, name  # no former place, which forwards it


def test_a_class_is_pickled_by_the_module_that_it_stands_in():
    for name in ("CounterCurrent", "MLP", "Classification"):
        kind = getattr(localearn, name)
        assert pickle.loads(pickle.dumps(kind)) is kind
        assert kind.__module__ == registry.exports("localearn")[name]


def test_modules_are_attributes_as_ever_and_what_is_not_there_is_not():
    assert localearn.nets is importlib.import_module("localearn.nets")
    assert callable(localearn.data.text) and localearn.data.text.__module__ == "localearn.data.text"
    for name in ("nothing", "__wrapped__", "_hidden"):
        with pytest.raises(AttributeError, match=f"module 'localearn' has no attribute '{name}'"):
            getattr(localearn, name)
    with pytest.raises(ImportError, match=r"cannot import name 'Nothing' from 'localearn\.trainers'"):
        exec("from localearn.trainers import Nothing")
