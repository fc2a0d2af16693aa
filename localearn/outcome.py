"""Tell how a run ended, and give the exit status that says it."""

import os

from localearn.printing import say
from localearn.records import LOSS, Record
from localearn.trust import is_known, targets_of

_STATUS = {"completed": 0, "diverged": 3, "stopped": 3}


def report(record: Record) -> int:
    """Print what came of a run, on the first rank, and return the exit status that says it."""
    if os.environ.get("RANK", "0") != "0":
        return _STATUS[record.status] if record.status in _STATUS else 128 + int(record.diagnostics["signal"])
    out = record.config.get("out")
    if record.status == "completed":
        joules = record.energy.get("train_j")
        energy = "energy absent" if joules is None else f"{joules:,.1f} J {record.energy['label']}"
        say(
            f"{record.algo} on {record.dataset}: {_tested(record)}, "
            f"{record.passes:g} passes, training {record.train_s:.1f} s, {energy}; {out}"
        )
        return 0
    say(f"{record.status}: {record.error}", error=True)
    if record.status == "interrupted":
        foreign = {str(target) for _, target in targets_of(record.config) if not is_known(target)}
        word = f" trust=[{','.join(sorted(foreign))}]" if foreign else ""
        say(f"go on with: python -m localearn.run resume={out}{word}", error=True)
        return 128 + int(record.diagnostics["signal"])
    kept = "the last good checkpoint and the record are" if record.epochs else "no epoch was good; the record is"
    say(f"{kept} in {out}", error=True)
    return 3


def _tested(record: Record) -> str:
    """Return the test split's metrics in words."""
    shown = {"fraction": lambda figure: f"{100 * figure:.2f} %", "value": lambda figure: f"{figure:.4g}"}
    judged = {name: figures for name, figures in record.metrics.items() if name != LOSS.name}
    return ", ".join(f"test {name.replace('_', ' ')} {shown[m['unit']](m['test'])}" for name, m in judged.items())
