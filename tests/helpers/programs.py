"""Programs of experiments/, which stand outside the package, as modules."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def program(path: str) -> Any:
    """Return a program of experiments/ as a module, afresh, whose dataclasses find it by its name."""
    name = "experiments." + path.removesuffix(".py").replace("/", ".")
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
