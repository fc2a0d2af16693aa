"""Registry of what localearn ships: each rule, net, task and kind of data is named once, and all else reads it here.

A rule is named by its file, conf/algo/<rule>.yaml, whose entry `about` says where its class stands, which paper it is
from and what it serves:

    about:
      class: localearn.trainers.local.cafo.CaFo
      paper: "2303.09728"
      nets: [MLP, CNN, GNN: not GAT]
      tasks: [classes, values]

The other classes and functions stand in the tables below. The packages take their names from here and import a module
when one of its names is first used (PEP 562), so `import localearn` imports no rule, and not torch either; a file may
name these and no other of localearn's (`localearn.trust`); `localearn list`, the documents' tables and the tests' lists
are of these too. `python docs/tools/site_rules.py` writes what has to be written out: the tables, and the imports by
which type checkers and editors know the names.
"""

import functools
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONF = Path(__file__).parent / "conf"

# Classes of nets, and their modules in localearn.nets.
NETS = {
    "CNN": "conv",
    "DeepFM": "deepfm",
    "Denoiser": "denoiser",
    "GNN": "gnn",
    "LeNet": "conv",
    "MLP": "mlp",
    "Mixer": "patches",
    "MobileNetV3": "classifiers",
    "Physical": "physical",
    "Recurrent": "recurrent",
    "ResNet": "conv",
    "Torchvision": "classifiers",
    "Transformer": "transformer",
    "ViT": "patches",
}
# Kinds of tasks, and their modules in localearn.tasks, in the order in which an error message lists them.
TASKS = {
    "Classification": "classification",
    "Regression": "regression",
    "MultiLabel": "multilabel",
    "LanguageModelling": "language",
    "LinkPrediction": "links",
    "Autoencoding": "autoencoding",
    "ViewSynthesis": "views",
}
# Functions with options of their own that make data, and their modules in localearn.data; `load` calls the rest.
DATA = {
    "adding": "memory",
    "coordinates": "coordinates",
    "copy_memory": "memory",
    "interactions": "interactions",
    "links": "links",
    "photo": "coordinates",
    "table": "table",
    "text": "text",
    "views": "views",
}

# What the packages export beside these: building blocks, abstract classes, functions.
_NETS_MORE = {
    "Block": "localearn.nets.block",
    "Flattened": "localearn.nets.views",
    "InputSpec": "localearn.inputs",
    "Net": "localearn.nets.net",
    "PerPosition": "localearn.nets.views",
    "Pooled": "localearn.nets.views",
    "load_weights": "localearn.nets.weights",
    "save_weights": "localearn.nets.weights",
}
_FAMILIES = {
    "BackwardPathTrainer": "localearn.trainers.feedback.backward_path",
    "EstimatorTrainer": "localearn.trainers.estimators.base",
    "FeedbackTrainer": "localearn.trainers.feedback.base",
    "LocalTrainer": "localearn.trainers.local.base",
    "Trainer": "localearn.trainers.base",
}
_MORE: Mapping[str, Mapping[str, str]] = {
    "localearn": {
        **_NETS_MORE,
        **_FAMILIES,
        "Batch": "localearn.data.base",
        "Callback": "localearn.training.callbacks",
        "Data": "localearn.data.base",
        "Metric": "localearn.tasks.base",
        "Record": "localearn.records.record",
        "Task": "localearn.tasks.base",
        "Unsupported": "localearn.errors",
        "UserError": "localearn.errors",
        "fit": "localearn.training.fit",
        "generate": "localearn.data.generation",
        "load": "localearn.data.sources",
        "load_net": "localearn.training.loading",
        "load_rule": "localearn.training.loading",
        "recipe": "localearn.defaults",
    },
    "localearn.nets": {
        **_NETS_MORE,
        "LastPosition": "localearn.nets.views",
        "Normalized": "localearn.nets.views",
        "Opaque": "localearn.nets.physical",
        "View": "localearn.nets.views",
    },
    "localearn.trainers": {
        **_FAMILIES,
        "Descent": "localearn.trainers.phases",
        "Phase": "localearn.trainers.phases",
        "Solve": "localearn.trainers.phases",
        "Stage": "localearn.trainers.former",
    },
}

_CLASS = re.compile(r"^about:.*\n  class: (localearn(?:\.\w+)+)\.(\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Rule:
    """A rule that localearn ships, as its file names it.

    Attributes:
        name: The name of its file, as in `algo=mono_forward`.
        class_name: The name of its class, as in `localearn.MonoForward`.
        module: The module of its class.

    """

    name: str
    class_name: str
    module: str

    @property
    def target(self) -> str:
        """The `_target_` of its file: the class as a user imports it."""
        return f"localearn.{self.class_name}"

    @property
    def family(self) -> str:
        """The package in localearn.trainers that it stands in: local, feedback, paired, estimators; or reference."""
        parts = self.module.split(".")
        return parts[2] if len(parts) > 3 else "reference"


@functools.cache
def rules() -> Mapping[str, Rule]:
    """Return the rules that localearn ships, by name, in alphabetical order.

    Raises:
        ValueError: For a file in conf/algo that does not say where its class stands.

    """
    found = {}
    for path in sorted((CONF / "algo").glob("*.yaml")):
        # Read as text: localearn's first import does this, and PyYAML's own takes longer than that of all the rest.
        match = _CLASS.search(path.read_text(encoding="utf-8"))
        if match is None:
            raise ValueError(f"{path} must say where the rule's class stands: about:, and below it class: MODULE.CLASS")
        found[path.stem] = Rule(path.stem, match[2], match[1])
    return found


@functools.cache
def exports(package: str) -> Mapping[str, str]:
    """Return the module of each name that a package of localearn's takes from the registry, sorted by name.

    Args:
        package: "localearn", "localearn.nets", "localearn.tasks", "localearn.data", "localearn.trainers", or one of the
            latter's families.

    """
    of_rules = {rule.class_name: rule.module for rule in rules().values()}
    shipped = {
        "localearn.nets": {name: f"localearn.nets.{module}" for name, module in NETS.items()},
        "localearn.tasks": {name: f"localearn.tasks.{module}" for name, module in TASKS.items()},
        "localearn.trainers": of_rules,
    }
    shipped["localearn"] = {name: module for names in shipped.values() for name, module in names.items()}
    shipped["localearn.data"] = {name: f"localearn.data.{module}" for name, module in DATA.items()}
    if package.startswith("localearn.trainers."):
        everything = of_rules | _FAMILIES
        found = {name: module for name, module in everything.items() if module.startswith(f"{package}.")}
    else:
        found = shipped[package] | _MORE.get(package, {})
    return dict(sorted(found.items(), key=lambda pair: (not pair[0].isupper(), not pair[0][0].isupper(), pair[0])))


def member(package: str, name: str) -> Any:
    """Return what a name of a package stands for, importing its module.

    Args:
        package: A package that has `exports`.
        name: One of them.

    """
    return getattr(importlib.import_module(exports(package)[name]), name)


def lazily(package: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package whose names are imported when they are first used.

    Its modules are found as attributes too, as `localearn.nets` after `import localearn`.

    Args:
        package: A package that has `exports`.

    """
    names = exports(package)

    def find(name: str) -> Any:
        if name in names:
            found = member(package, name)
        else:
            module = f"{package}.{name}"
            try:
                if name.startswith("_"):
                    raise ModuleNotFoundError(name=module)
                return importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name != module:
                    raise
                raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
        setattr(sys.modules[package], name, found)
        return found

    def everything() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return list(names), find, everything
