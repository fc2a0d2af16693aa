"""Imports are those that pyproject.toml declares; what is missing is named with the line that installs it."""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import localearn

PACKAGE = Path(localearn.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Packages whose modules are called otherwise.
MODULES = {
    "hydra-core": "hydra",
    "mlflow-skinny": "mlflow",
    "nvidia-ml-py": "pynvml",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "torch-geometric": "torch_geometric",
}
# Declared for what they bring to other packages: a sampler of Optuna's, torch's exporter and writer, a driver.
UNSEEN = {"cmaes", "onnx", "tensorboard", "psycopg", "hydra_joblib_launcher", "hydra_submitit_launcher"}


def names(requirements: list[str]) -> set[str]:
    """Return the modules of requirements, localearn's own extras left out."""
    packages = [re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0] for line in requirements]
    return {MODULES.get(name, name.replace("-", "_")) for name in packages} - {"localearn"}


def imported() -> dict[str, set[str]]:
    """Return the top-level modules that localearn imports of others, with the files that do."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _names(node):
                top = name.partition(".")[0]
                if top != "localearn" and top not in sys.stdlib_module_names:
                    found[top].add(path.relative_to(PACKAGE).as_posix())
    return found


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
    elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("import_module", "optional"):
        yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def test_everything_imported_is_declared():
    extras = PROJECT["optional-dependencies"]
    users = set().union(*(names(lines) for name, lines in extras.items() if name != "dev"))
    assert {
        name: files for name, files in imported().items() if name not in names(PROJECT["dependencies"]) | users
    } == {}


def test_everything_declared_is_imported():
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name not in ("test", "dev", "docs")
              for line in lines]  # fmt: skip
    assert names([*PROJECT["dependencies"], *extras]) - set(imported()) <= UNSEEN


def test_every_dependency_has_a_lower_bound():
    assert all(">=" in line for line in PROJECT["dependencies"])


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()
