"""Tasks: the meaning of a net's output, its loss, and the metrics by which it is judged."""

from collections.abc import Mapping
from typing import Any

from localearn.errors import UserError
from localearn.tasks.autoencoding import Autoencoding, Reconstruction
from localearn.tasks.base import Direction, Means, Metric, Targets, Task, Unit, better
from localearn.tasks.classification import Classification
from localearn.tasks.language import LanguageModelling
from localearn.tasks.links import LinkPrediction
from localearn.tasks.multilabel import MultiLabel
from localearn.tasks.regression import Criterion, Regression
from localearn.tasks.views import ViewSynthesis

__all__ = [
    "KINDS",
    "NAMED",
    "Autoencoding",
    "Classification",
    "Criterion",
    "Direction",
    "LanguageModelling",
    "LinkPrediction",
    "Means",
    "Metric",
    "MultiLabel",
    "Reconstruction",
    "Regression",
    "Targets",
    "Task",
    "Unit",
    "ViewSynthesis",
    "better",
    "read_task",
]

KINDS: Mapping[str, type[Task]] = {
    kind.__name__: kind
    for kind in (Classification, Regression, MultiLabel, LanguageModelling, LinkPrediction, Autoencoding, ViewSynthesis)
}
# The names of tasks in a data set's option `task`.
NAMED: Mapping[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "multilabel": MultiLabel,
    "binary": MultiLabel,
    "autoencoding": Autoencoding,
}


def read_task(where: object, described: Any) -> Task:
    """Return the task that `Task.describe` described, of one of localearn's own kinds.

    Args:
        where: the file that the description comes from, for error messages.
        described: the kind and the options, as a file gives them back.

    Raises:
        UserError: for another kind, or for options that it does not have.

    """
    kind = described.get("kind") if isinstance(described, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{where}: its task is {kind!r}; there are {', '.join(KINDS)}")
    options = {name: tuple(v) if isinstance(v, list) else v for name, v in described.items() if name != "kind"}
    try:
        return KINDS[kind](**options)
    except TypeError as error:
        raise UserError(f"{where}: its task is no {kind}: {error}") from error
