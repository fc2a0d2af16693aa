"""Train small nets by Forward-Forward, backprop and Mono-Forward, and analyse what their units learned.

    python experiments/units/units.py [out=results/units]

trains what is missing below OUT/runs, in this order, and then writes OUT/mnist, OUT/fashion_mnist, OUT/mnist-unseen and
OUT/fashion_mnist-unseen by `python -m localearn.analyse`; of rows that are not trained yet it says so and goes on.
"""

import sys
from pathlib import Path

from localearn import analyse, run

NET = ["net.widths=[200,200,200]", "dataset.train_size=6000", "energy.enabled=false", "progress=false"]
EPOCHS = {"forward_forward": 10, "backprop": 6, "mono_forward": 6, "feedback_alignment": 6}
UNSEEN = {"mnist": 3, "fashion_mnist": 6}  # class 6 of Fashion-MNIST is the shirt
RULES = ("forward_forward", "backprop", "mono_forward")
ANGLES = ("mono_forward", "feedback_alignment")


def rows() -> dict[str, list[str]]:
    """Return the overrides of each run by its name."""
    found: dict[str, list[str]] = {}
    for dataset, left_out in UNSEEN.items():
        for unseen in (False, True):
            for rule in RULES:
                name = f"{dataset}-{rule}" + (f"-without_{left_out}" if unseen else "")
                found[name] = [f"algo={rule}", f"dataset={dataset}", f"epochs={EPOCHS[rule]}", *NET]
                found[name] += [f"dataset.leave_out=[{left_out}]"] if unseen else []
                found[name] += ["diagnose=alignment"] if rule in ANGLES else []
        name = f"{dataset}-feedback_alignment"
        if dataset == "mnist":
            found[name] = ["algo=feedback_alignment", f"dataset={dataset}", f"epochs={EPOCHS['feedback_alignment']}"]
            found[name] += [*NET, "diagnose=alignment"]
    return found


def main(arguments: list[str]) -> int:
    """Train what is missing and analyse; return the exit status, that of the first run that fails."""
    options = dict(argument.split("=", 1) for argument in arguments)
    out = Path(options.get("out", "results/units"))
    for name, overrides in rows().items():
        folder = out / "runs" / name
        if not (folder / "run.json").exists():
            status = run.main([*overrides, f"out={folder.as_posix()}"])
            if status:
                return status
    for dataset, left_out in UNSEEN.items():
        whole = [f"{dataset}-{rule}" for rule in (*RULES, "feedback_alignment")]
        for page, names in (
            (dataset, [name for name in whole if name in rows()]),
            (f"{dataset}-unseen", [f"{dataset}-{rule}-without_{left_out}" for rule in RULES]),
        ):
            folders = [(out / "runs" / name).as_posix() for name in names]
            status = analyse.main([*folders, f"out={(out / page).as_posix()}"])
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
