"""The conformance suite as the rules here run it: by default on kinds measured to cover their branches."""

import json
from pathlib import Path

from localearn.testing import RuleConformance

# Measured by `python -m tests.helpers.covering`. A suite that is not in it runs on all that it serves.
COVERING = json.loads((Path(__file__).parents[1] / "trainers" / "covering.json").read_text(encoding="utf-8"))


class Suite(RuleConformance):
    """A suite that runs by default on its entry in tests/trainers/covering.json; in bfloat16 it learns on one kind."""

    def __init_subclass__(cls) -> None:
        kinds = COVERING.get(cls.__name__)
        cls.by_default = None if kinds is None else tuple(kinds)
        cls.learns_on = {} if kinds is None else {"bf16": tuple(kinds[:1])}
