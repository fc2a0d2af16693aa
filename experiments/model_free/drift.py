"""Table what a drift of the systems costs model-free training, with and without training on.

    python experiments/model_free/drift.py [out=results/model_free] [seeds=[0,1,2]] [systems=[optics,diodes]]
                                           [epochs=10] [again=2]

For each seed and simulated system a net learns the digits; then its systems drift, and the test accuracy is read with
the weights as they are, and after `again` more epochs from these weights. The last column trains a new net for `again`
epochs on the drifted systems: what training on has to beat. The table has the systems that `out` has files of already.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from localearn import ModelFree, Physical, load
from localearn.cli.options import listed
from localearn.files import atomic_write, replace_text
from localearn.nets.physical import SYSTEMS
from localearn.reporting.formatting import mean_and_range

COLUMNS = ("as it is", "trained on", "new net")
DRIFTS = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
QUIET: dict[str, Any] = {"energy": False, "progress": False, "device": "cpu"}


def built(system: str, seed: int, drift: float = 0.0) -> ModelFree:
    """Return an untrained rule on blocks of that system, whose couplings are of the seed too."""
    torch.manual_seed(seed)
    return ModelFree(Physical((1, 8, 8), 10, system=system, seed=100 * seed, drift=drift))


def accuracy(rule: ModelFree, data: Any) -> float:
    """Return the share of the test images that are classified correctly."""
    (batch,) = data.batches("test", 10_000)
    rule.eval()
    with torch.no_grad():
        return (rule.predict(batch.x).argmax(1) == batch.target).float().mean().item()


def measured(system: str, seed: int, epochs: int, again: int, folder: Path) -> list[dict[str, float]]:
    """Return a row for each drift; the records of the runs are written to the folder."""
    data = load("digits")
    rule = built(system, seed)
    trained = rule.fit(data, epochs=epochs, seed=seed, **QUIET)
    kept = {name: value.clone() for name, value in rule.state_dict().items()}
    runs, rows = {"trained": json.loads(trained.to_json())}, []
    for drift in DRIFTS:
        rule.load_state_dict(kept)
        assert isinstance(rule.net, Physical)
        rule.net.drift_to(drift)  # the state has the couplings as they were
        as_it_is = accuracy(rule, data)
        retrained = rule.fit(data, epochs=again, seed=seed, **QUIET)
        new = built(system, seed, drift).fit(data, epochs=again, seed=seed, **QUIET)
        runs |= {f"on {drift}": json.loads(retrained.to_json()), f"new {drift}": json.loads(new.to_json())}
        rows.append(
            {"drift": drift, "as it is": as_it_is, "trained on": retrained.test_accuracy, "new net": new.test_accuracy}
        )
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / f"{system}-{seed}.json", json.dumps({"rows": rows, "runs": runs}, indent=1) + "\n")
    return rows


def page(table: dict[str, list[list[dict[str, float]]]], epochs: int, again: int) -> str:
    """Return the table in Markdown, means over the seeds with the least and the most."""
    seeds = len(next(iter(table.values())))
    lines = [
        "# What drift costs model-free training",
        "",
        f"Digits, two blocks of 256, {epochs} epochs without drift, then the systems drift. Test accuracy in %: mean "
        f"(least to most) over {seeds} seeds of weights and couplings.",
        "Drift 0 is the system that was trained on, 1 an independent one of its kind. `as it is`: no more training. "
        f"`trained on`: {again} more epochs. `new net`: {again} epochs from the start.",
        f"`python experiments/model_free/drift.py epochs={epochs} again={again}` writes this page; "
        "each seed's runs are beside it.",
        "",
        "| system | drift | as it is | trained on | new net |",
        "|---|---|---|---|---|",
    ]
    for system, of_seeds in table.items():
        for rows in zip(*of_seeds, strict=True):
            cells = [mean_and_range([100 * row[name] for row in rows]) for name in COLUMNS]
            lines.append(f"| {system} | {rows[0]['drift']:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(
    table: dict[str, list[list[dict[str, float]]]], across: str, columns: tuple[str, ...], label: str, path: Path
) -> None:
    """Draw each column's mean over seeds against one, with the least and the most, a panel a system."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    width = 3.7 * len(table)
    figure, axes = plt.subplots(1, len(table), figsize=(width, 3.4), sharey=True, squeeze=False, layout="constrained")
    for panel, (system, of_seeds) in zip(axes[0], table.items(), strict=True):
        places = range(len(of_seeds[0]))
        for name in columns:
            by_place = [[100 * rows[place][name] for rows in of_seeds] for place in places]
            panel.plot(places, [statistics.mean(values) for values in by_place], "o-", label=name)
            low, high = [min(values) for values in by_place], [max(values) for values in by_place]
            panel.fill_between(places, low, high, alpha=0.2)
        panel.set_title(system)
        panel.set_xlabel(label)
        panel.set_xticks(places, [f"{row[across]:g}" for row in of_seeds[0]])
    axes[0, 0].set_ylabel("test accuracy, %")
    axes[0, 0].legend(fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    """Measure the systems and write table.md and drift.png, and each seed's rows and runs."""
    options = dict(argument.split("=", 1) for argument in arguments)
    out = Path(options.get("out", "results/model_free"))
    seeds = [int(seed) for seed in listed(options.get("seeds", "[0,1,2]"))]
    systems = listed(options["systems"]) if "systems" in options else list(SYSTEMS)
    epochs, again = int(options.get("epochs", 10)), int(options.get("again", 2))
    torch.set_num_threads(1)
    for system in systems:
        for seed in seeds:
            measured(system, seed, epochs, again, out)
        replace_text(out / "table.md", page(found(out, seeds, epochs, again), epochs, again))
        draw(found(out, seeds, epochs, again), "drift", COLUMNS, "drift of the couplings", out / "drift.png")
        print(system, "done", flush=True)


def found(out: Path, seeds: list[int], epochs: int, again: int) -> dict[str, list[list[dict[str, float]]]]:
    """Return each system's rows, seed by seed, of the files that a folder has of all seeds and of these epochs."""
    table = {}
    for system in SYSTEMS:
        paths = [out / f"{system}-{seed}.json" for seed in seeds]
        files = [json.loads(path.read_text()) for path in paths if path.exists()]
        alike = all(
            file["runs"]["trained"]["epochs"] == epochs and file["runs"]["new 1.0"]["epochs"] == again for file in files
        )
        if len(files) == len(seeds) and alike:
            table[system] = [file["rows"] for file in files]
    return table


if __name__ == "__main__":
    main(sys.argv[1:])
