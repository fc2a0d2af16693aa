"""Train small nets by Forward-Forward, backprop and Mono-Forward, and analyse what their units learned.

    python experiments/units/units.py [out=results/units] [only=mnist,mnist-unseen]

trains what is missing below OUT/runs and then writes OUT/<page> by `python -m localearn.analyse`, page by page.
"""

import sys
from pathlib import Path

from localearn.cli import analyse, run

NET = ["net.widths=[200,200,200]", "energy.enabled=false", "progress=false"]
RULES = ("forward_forward", "backprop", "mono_forward")
UNSEEN = {"mnist": 3, "fashion_mnist": 6}  # class 6 of Fashion-MNIST is the shirt


def row(rule: str, dataset: str, epochs: int, *more: str) -> list[str]:
    """Return the overrides of a run."""
    return [f"algo={rule}", f"dataset={dataset}", f"epochs={epochs}", *NET, *more]


def pages() -> dict[str, dict[str, list[str]]]:
    """Return for each page its runs' overrides, by their names."""
    found: dict[str, dict[str, list[str]]] = {}
    for dataset, left_out in UNSEEN.items():
        for page, name, more in ((dataset, "", []), (f"{dataset}-unseen", f"-without_{left_out}", [left_out])):
            found[page] = {}
            for rule in RULES:
                options = ["dataset.train_size=6000", *(f"dataset.leave_out=[{k}]" for k in more)]
                options += ["diagnose=alignment"] if rule == "mono_forward" else []
                epochs = 10 if rule == "forward_forward" else 6
                found[page][f"{dataset}-{rule}{name}"] = row(rule, dataset, epochs, *options)
    feedback = row("feedback_alignment", "mnist", 6, "dataset.train_size=6000", "diagnose=alignment")
    found["mnist"]["mnist-feedback_alignment"] = feedback
    # Far longer, on a smaller set: is it time that makes Forward-Forward sparse, or its peers that keep it from that?
    found["digits-long"] = {
        "digits-forward_forward-long": row("forward_forward", "digits", 150),
        "digits-forward_forward-long-no_peers": row("forward_forward", "digits", 150, "algo.peer_normalization=0"),
        "digits-backprop-long": row("backprop", "digits", 50),
    }
    return found


def main(arguments: list[str]) -> int:
    """Train what is missing and analyse; return the exit status, that of the first run that fails."""
    options = dict(argument.split("=", 1) for argument in arguments)
    out = Path(options.get("out", "results/units"))
    known = pages()
    for page in options["only"].split(",") if "only" in options else known:
        folders = {name: (out / "runs" / name).as_posix() for name in known[page]}
        for name, folder in folders.items():
            if not Path(folder, "run.json").exists():
                status = run.main([*known[page][name], f"out={folder}"])
                if status:
                    return status
        status = analyse.main([*folders.values(), f"out={(out / page).as_posix()}"])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
