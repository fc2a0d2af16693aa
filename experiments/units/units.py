"""Train small nets by Forward-Forward, backprop and Mono-Forward, and analyse what their units learned.

    python experiments/units/units.py [out=results/units] [only=mnist,mnist-unseen]

trains what is missing below OUT/runs and then writes OUT/<page> by `python -m localearn.analyse`, page by page.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localearn.cli import analyse
from localearn.cli.errors import run_command
from localearn.cli.options import Options, choice, option, read
from localearn.grid import Grid, RunCell
from localearn.jobs import Job

NET = ["net.widths=[200,200,200]", "energy.enabled=false", "progress=false"]
RULES = ("forward_forward", "backprop", "mono_forward")
READ = ("dataset.train_size=6000", "dataset.val_fraction=0.02", "algo.prediction=goodness")
ALONE = "algo.peer_normalization=0"
# Of the authors of arXiv 2305.18353, see `long_rows`.
THRESHOLD = ("algo.goodness=mean", "algo.threshold=9")
STEPS = ("optim.lr=0.01", "batch_size=1024", "net.init=default", "schedule=constant")
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
    # Far longer: does time make Forward-Forward sparse, do its peers keep it from that, or is it the recipe?
    found["digits-long"] = {
        "digits-forward_forward-long": row("forward_forward", "digits", 150),
        "digits-forward_forward-long-no_peers": row("forward_forward", "digits", 150, "algo.peer_normalization=0"),
        "digits-backprop-long": row("backprop", "digits", 50),
    }
    found["mnist-long"] = {f"mnist-forward_forward-{name}": options for name, options in long_rows().items()}
    found["mnist-long"]["mnist-backprop-60"] = row("backprop", "mnist", 60, "dataset.train_size=6000")
    found["mnist-recipe"] = {f"mnist-forward_forward-{name}": options for name, options in recipe_rows().items()}
    return found


def long_rows() -> dict[str, list[str]]:
    """Return the overrides of Forward-Forward's runs read by goodness: passes by peers, and the authors' recipe.

    The authors' code (github.com/NiccoloTosato/EmergentRepresentations) has a goodness of |h| against 3, of inputs of
    length 1: a mean square of 9 where inputs have one of 1, as ours; Adam at 0.01, batches of 1,024, no peers and
    PyTorch's own weights. One block learns after another there, for 1,200 passes over 60,000 rows, by one wrong label
    for each that is drawn once; ours differ in that.
    """
    return {
        "10": row("forward_forward", "mnist", 10, *READ),
        "10-no_peers": row("forward_forward", "mnist", 10, *READ, ALONE),
        "150": row("forward_forward", "mnist", 150, *READ),
        "150-no_peers": row("forward_forward", "mnist", 150, *READ, ALONE),
        "authors": row("forward_forward", "mnist", 440, *READ, ALONE, *THRESHOLD, *STEPS),
    }


def recipe_rows() -> dict[str, list[str]]:
    """Return the overrides of runs by the authors' threshold alone, and by their steps alone."""
    return {
        "threshold": row("forward_forward", "mnist", 25, *READ, ALONE, *THRESHOLD),
        "steps": row("forward_forward", "mnist", 100, *READ, ALONE, *STEPS),
    }


@dataclass(frozen=True)
class UnitsOptions(Options):
    """The options of the experiment."""

    out: Path = option(Path("results/units"), "where runs and pages go")
    only: Sequence[str] | None = option(None, "these pages alone", value="PAGE,PAGE")


def main(arguments: list[str]) -> int:
    """Train what is missing and analyse; return the exit status, that of the first page whose runs fail."""
    options = read(UnitsOptions, arguments)
    out, known = options.out, pages()
    for page in options.only or ():
        choice("only", page, list(known))
    grid = Grid(done=lambda cell: cell.finished, share=True)
    for page in options.only or known:
        folders = {name: (out / "runs" / name).as_posix() for name in known[page]}
        status = grid.run(
            RunCell(name=name, job=Job(Path(folder), known[page][name]), keep_weights=True)
            for name, folder in folders.items()
        )
        status = status or analyse.main([*folders.values(), f"out={(out / page).as_posix()}"])
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
