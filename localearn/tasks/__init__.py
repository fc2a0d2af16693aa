"""Tasks: the meaning of a net's output, its loss, and the metrics by which it is judged."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from localearn import registry
from localearn.errors import UserError
from localearn.tasks.autoencoding import Reconstruction
from localearn.tasks.base import Direction, Means, Metric, Targets, Task, Unit, better
from localearn.tasks.regression import Criterion

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.tasks.autoencoding import Autoencoding as Autoencoding
    from localearn.tasks.classification import Classification as Classification
    from localearn.tasks.language import LanguageModelling as LanguageModelling
    from localearn.tasks.links import LinkPrediction as LinkPrediction
    from localearn.tasks.multilabel import MultiLabel as MultiLabel
    from localearn.tasks.regression import Regression as Regression
    from localearn.tasks.views import ViewSynthesis as ViewSynthesis

KINDS: Mapping[str, "type[Task]"] = {name: registry.member(__name__, name) for name in registry.TASKS}
globals().update(KINDS)

__all__ = [
    "KINDS",
    "NAMED",
    "Criterion",
    "Direction",
    "Means",
    "Metric",
    "Reconstruction",
    "Targets",
    "Task",
    "Unit",
    "better",
    "read_task",
]
__all__ += list(KINDS)  # pyright: ignore[reportUnsupportedDunderAll]

# The names of tasks in a data set's option `task`.
NAMED: Mapping[str, type[Task]] = {
    "classification": KINDS["Classification"],
    "regression": KINDS["Regression"],
    "multilabel": KINDS["MultiLabel"],
    "binary": KINDS["MultiLabel"],
    "autoencoding": KINDS["Autoencoding"],
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
