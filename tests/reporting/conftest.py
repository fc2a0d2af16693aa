import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def factory() -> ModuleType:
    """The module of synthetic records, which no import path reaches under --import-mode=importlib."""
    spec = importlib.util.spec_from_file_location("factory", Path(__file__).with_name("factory.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
