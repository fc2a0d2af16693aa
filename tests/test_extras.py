"""A missing or broken optional package is named with the line that installs it."""

import importlib.abc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import localearn
from localearn import exporting
from localearn.composition import compose
from localearn.data.tokens import BytePairs
from localearn.errors import UserError
from localearn.extras import optional
from localearn.training.loggers import MLflowLogger, TensorBoardLogger, WandbLogger
from localearn.tuning.storage import open_storage, reported


class Blocker(importlib.abc.MetaPathFinder):
    """Has modules be missing, or their import fail."""

    def __init__(self, module: str, error: Exception):
        self.module, self.error = module, error

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == self.module:
            raise self.error
        return None


@pytest.fixture
def without(monkeypatch):
    """Have a package be missing, or broken by another error."""

    def block(module: str, error: Exception | None = None) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        missing = ModuleNotFoundError(f"No module named {module!r}", name=module)
        monkeypatch.setattr(sys, "meta_path", [Blocker(module, error or missing), *sys.meta_path])

    return block


# What needs a package, by the package: what it is used by, the line that installs it, and modules imported anew for it.
USES: dict[str, tuple[Callable[[Path], Any], str, tuple[str, ...]]] = {
    "onnxruntime": (lambda out: exporting._onnx(localearn.MLP((4,), 2, widths=(3,)), out), "localearn[onnx]", ()),
    "onnxscript": (lambda out: optional("onnxscript", "format=onnx", "onnx"), "localearn[onnx]", ()),
    "tensorboard": (TensorBoardLogger, "localearn[tensorboard]", ("torch.utils.tensorboard",)),
    "mlflow": (lambda out: MLflowLogger(), "localearn[mlflow]", ()),
    "wandb": (lambda out: WandbLogger(), "localearn[wandb]", ()),
    "lightning": (lambda out: importlib.import_module("localearn.lightning"), "localearn[lightning]",
                  ("localearn.lightning",)),
    "psycopg": (lambda out: open_database("postgresql://nobody@127.0.0.1:9/none"), "localearn[postgres]",
                ("sqlalchemy.dialects.postgresql.psycopg",)),
    "tokenizers": (lambda out: BytePairs.learned("a text", 300), "tokenizers, or use unit=bytes", ()),
}  # fmt: skip


def open_database(url: str) -> Any:
    """Open a storage as a search does."""
    with reported(url):
        return open_storage(url, 15, lambda study, trial: None)


@pytest.mark.parametrize("broken", [False, True], ids=["missing", "broken"])
@pytest.mark.parametrize("package", USES)
def test_a_missing_or_broken_package_is_named_with_the_line_that_installs_it(
    package, broken, without, tmp_path, monkeypatch
):
    use, line, anew = USES[package]
    for name in [name for name in sys.modules if name.startswith(anew or ("none such",))]:
        monkeypatch.delitem(sys.modules, name)
    without(package, ImportError(f"lib{package}.so: undefined symbol\nmore") if broken else None)
    with pytest.raises(UserError) as error:
        use(tmp_path)
    said = str(error.value)
    assert "pip install" in said and line in said
    assert package in said
    assert ("undefined symbol" in said) == broken
    assert "more" not in said


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_a_launcher(launcher):
    pytest.importorskip("hydra")
    if any("submitit" in str(name) for name in sys.modules):
        pytest.skip("submitit is installed here")
    with pytest.raises(UserError, match=r'needs a launcher of Hydra\'s; pip install "localearn\[sweep\]"'):
        compose([f"hydra/launcher={launcher}"])
