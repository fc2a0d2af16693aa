"""Look at a Forward-Forward run's blocks by the neutral label, and by the label of most goodness.

    python experiments/units/labels.py DIR FILE

The paper's networks predict by goodness, so its activities are those of a chosen label; a run that predicts by a
readout has the neutral one. Writes both as JSON: accuracy, and of each block Hoyer's sparsity, dead units and mean
overlap.
"""

import json
import sys
from pathlib import Path
from typing import Any

from localearn import ForwardForward, UserError, load_rule
from localearn.analysing import examine
from localearn.files import replace_text


def main(folder: str, file: str) -> None:
    """Write what is found of a run by either prediction."""
    data, rule = load_rule(folder)
    if not isinstance(rule, ForwardForward):
        raise UserError(f"{folder} is of {type(rule).__name__}; give a run of algo=forward_forward")
    told: dict[str, Any] = {"run": folder}
    for prediction in ("softmax", "goodness"):
        rule.prediction = prediction
        found = examine(rule, data, rows=3000)
        told[prediction] = {
            "accuracy": found.accuracy,
            "hoyer": [block.hoyer for block in found.blocks],
            "dead_units": [block.dead for block in found.blocks],
            "mean_iou": [block.mean_shared(found.classes) for block in found.blocks],
        }
    replace_text(Path(file), json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
