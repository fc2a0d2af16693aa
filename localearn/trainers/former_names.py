"""Names in the checkpoints of earlier releases: of tensors, and of modules in the description of a rule."""

from collections.abc import Mapping
from typing import Any

from torch import nn

# Of modules, and of an attribute, as `repr` shows them: the present name, and the former one.
_FORMER_MODULES = {
    "PassThrough(": "Beside(",
    "ColumnEmbeddings(": "Embeddings(",
    "ClassEmbeddings(": "Embeddings(",
    "PatchEmbedding(": "Patches(",
    "VisionTransformerStem(": "Patches(",
    "HeadInput(": "Read(",
    "(adapter):": "(beside):",
}


def present_names(state: Mapping[str, Any], module: nn.Module) -> Mapping[str, Any]:
    """Return a state, or best weights, whose tensors have their present names where an earlier release had others.

    A submodule says so by `former_tensors`, a map from the beginning of a former name within it to the present one.

    Args:
        state: tensors by name; returned as it is where no name has changed.
        module: the module that is about to load it.

    """
    renames = [
        (f"{path}.{former}".lstrip("."), f"{path}.{present}".lstrip("."))
        for path, part in module.named_modules()
        for former, present in getattr(part, "former_tensors", {}).items()
    ]
    for former, present in renames:
        if any(name.startswith(former) for name in state):
            state = {
                f"{present}{name.removeprefix(former)}" if name.startswith(former) else name: value
                for name, value in state.items()
            }
    return state


def former_description(described: str) -> str:
    """Return the `repr` of a rule as an earlier release had it, which a checkpoint of that release is compared with.

    Args:
        described: the rule's `repr` now.

    """
    for present, former in _FORMER_MODULES.items():
        described = described.replace(present, former)
    return described
