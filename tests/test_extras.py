"""A missing or broken optional package is named with the line that installs it."""

import importlib.abc
import sys

import pytest

from localearn.composition import compose
from localearn.errors import UserError
from localearn.extras import optional
from localearn.training.loggers import TensorBoardLogger


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


def test_a_missing_package_is_named_with_its_extra(without):
    without("onnxscript")
    with pytest.raises(UserError, match=r'^format=onnx needs onnxscript; pip install "localearn\[onnx\]"$'):
        optional("onnxscript", "format=onnx", "onnx")


def test_a_broken_package_is_named_with_what_is_wrong(without):
    without("onnxruntime", ImportError("libonnx.so: undefined symbol\nmore"))
    said = (
        r"^format=onnx needs onnxruntime, whose import failed \(ImportError: libonnx.so: undefined symbol\); pip inst"
    )
    with pytest.raises(UserError, match=said):
        optional("onnxruntime", "format=onnx", "onnx")


def test_tensorboard(without, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    without("tensorboard")
    with pytest.raises(UserError, match=r'log=tensorboard needs tensorboard; pip install "localearn\[tensorboard\]"'):
        TensorBoardLogger(tmp_path)


@pytest.mark.parametrize("launcher", ["submitit_slurm", "submitit_local"])
def test_a_launcher(launcher):
    pytest.importorskip("hydra")
    if any("submitit" in str(name) for name in sys.modules):
        pytest.skip("submitit is installed here")
    with pytest.raises(UserError, match=r'needs a launcher of Hydra\'s; pip install "localearn\[sweep\]"'):
        compose([f"hydra/launcher={launcher}"])
