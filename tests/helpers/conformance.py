"""The conformance suite as the rules here run it: by default on kinds measured to cover their branches."""

import json
from pathlib import Path

from localearn.testing import RuleConformance

# Measured by `python -m tests.helpers.covering`. A suite that is not in it runs on all that it serves.
COVERING = json.loads((Path(__file__).parents[1] / "trainers" / "covering.json").read_text(encoding="utf-8"))

BASIC = ("mlp", "cnn", "gcn", "sage", "gat", "values", "tokens")
"""Where a second suite of a rule runs, one with another option than its configuration's, if all is asked for."""

LARGE = ("transformer", "vit", "mixer", "resnet", "mobilenet")
"""The slowest to learn: by default a rule learns its task on the others of its kinds, if there are any."""


class Suite(RuleConformance):
    """A suite that runs by default on its entry in tests/trainers/covering.json, and learns there on the smaller nets.

    In bfloat16 it learns on one of them. Where `runs_on` says less than all that the rule serves, the entry is added.
    """

    def __init_subclass__(cls) -> None:
        kinds = COVERING.get(cls.__name__)
        if kinds is None:
            cls.by_default, cls.learns_on = None, {}
            return
        learns_on = [kind for kind in kinds if kind not in LARGE] or kinds[:1]
        cls.by_default, cls.learns_on = kinds, {"fp32": learns_on, "bf16": learns_on[:1]}
        if cls.runs_on is not None:
            cls.runs_on = (*cls.runs_on, *(kind for kind in kinds if kind not in cls.runs_on))
