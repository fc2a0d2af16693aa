import importlib
import warnings
from typing import Any


def torch_geometric(module: str) -> Any:
    """Import one of torch_geometric's modules without the one warning of its import that nobody here can mend.

    It compiles its layers by `torch.jit.script`, which torch calls deprecated on every user's terminal.
    """
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", category)
        return importlib.import_module(f"torch_geometric.{module}")
