"""Table what it costs model-free training that the systems drift while it trains.

    python experiments/model_free/drift_in_training.py [out=results/model_free] [seeds=[0,1,2]]
                                                       [systems=[optics,diodes]] [epochs=20]

For each seed, simulated system and rate of drift a net learns the digits while its systems move by `net.drift_rate` at
each batch; the weights of the last epoch are tested on the systems as they have become. Beside it stands what the same
drift does to weights that were trained on systems at rest, and are not trained on.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from drift import QUIET, accuracy, draw

from localearn import ModelFree, Physical, load
from localearn.cli.options import listed
from localearn.files import replace_text
from localearn.nets.physical import SYSTEMS, System
from localearn.reporting.formatting import mean_and_range

RATES = (0.0, 0.01, 0.03, 0.06, 0.1, 0.2)
COLUMNS = ("trained meanwhile", "not trained meanwhile")


def built(system: str, seed: int, rate: float) -> ModelFree:
    """Return an untrained rule on blocks of that system, whose couplings are of the seed too."""
    torch.manual_seed(seed)
    return ModelFree(Physical((1, 8, 8), 10, system=system, seed=100 * seed, drift_rate=rate))


def measured(system: str, seed: int, epochs: int, folder: Path) -> None:
    """Write a row for each rate, and the runs' records, to the folder."""
    data = load("digits")
    batches = epochs * data.num_batches("train", 128)
    still = built(system, seed, 0.0)
    record = still.fit(data, epochs=epochs, batch_size=128, seed=seed, restore_best=False, **QUIET)
    kept = {name: value.clone() for name, value in still.state_dict().items()}
    runs, rows = {"still": json.loads(record.to_json())}, []
    for rate in RATES:
        rule = built(system, seed, rate)
        meanwhile = rule.fit(data, epochs=epochs, batch_size=128, seed=seed, restore_best=False, **QUIET)
        runs[f"rate {rate}"] = json.loads(meanwhile.to_json())
        left = built(system, seed, rate)
        left.load_state_dict(kept)
        for part in left.modules():
            if isinstance(part, System):
                for _ in range(batches if rate else 0):
                    part.age()
        rows.append(
            {
                "rate": rate,
                "correlation": math.cos(rate * math.pi / 2) ** batches,
                COLUMNS[0]: meanwhile.test_accuracy,
                COLUMNS[1]: accuracy(left, data),
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"in_training-{system}-{seed}.json"
    replace_text(path, json.dumps({"batches": batches, "rows": rows, "runs": runs}, indent=1) + "\n")


def found(out: Path, seeds: list[int]) -> tuple[int, dict[str, list[list[dict[str, float]]]]]:
    """Return a run's batches, and each system's rows, seed by seed, of the files that a folder has of all seeds."""
    table, batches = {}, 0
    for system in SYSTEMS:
        paths = [out / f"in_training-{system}-{seed}.json" for seed in seeds]
        if all(path.exists() for path in paths):
            files = [json.loads(path.read_text()) for path in paths]
            table[system], batches = [file["rows"] for file in files], files[0]["batches"]
    return batches, table


def page(table: dict[str, list[list[dict[str, Any]]]], batches: int, epochs: int) -> str:
    """Return the table in Markdown, means over the seeds with the least and the most."""
    seeds = len(next(iter(table.values())))
    lines = [
        "# What drift during training costs",
        "",
        f"Digits, two blocks of 256, {epochs} epochs of {batches // epochs} batches; test accuracy in %, mean (least "
        f"to most) over {seeds} seeds of weights and couplings.",
        "`rate`: `net.drift_rate`, what each batch moves the couplings by; `correlation`: of the couplings at the end "
        f"with those at first. `{COLUMNS[0]}`: the last epoch's weights, on the systems as they have become. "
        f"`{COLUMNS[1]}`: weights of {epochs} epochs on systems at rest, which then drift as far.",
        f"`python experiments/model_free/drift_in_training.py epochs={epochs}` writes this page; each seed's runs are "
        "beside it.",
        "",
        f"| system | rate | correlation | {' | '.join(COLUMNS)} |",
        "|---|---|---|---|---|",
    ]
    for system, of_seeds in table.items():
        for rows in zip(*of_seeds, strict=True):
            cells = [mean_and_range([100 * row[name] for row in rows]) for name in COLUMNS]
            lines.append(f"| {system} | {rows[0]['rate']:g} | {rows[0]['correlation']:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Measure the systems and write in_training.md and its plot, and each seed's rows and runs."""
    options = dict(argument.split("=", 1) for argument in arguments)
    out, epochs = Path(options.get("out", "results/model_free")), int(options.get("epochs", 20))
    seeds = [int(seed) for seed in listed(options.get("seeds", "[0,1,2]"))]
    torch.set_num_threads(1)
    for system in listed(options["systems"]) if "systems" in options else list(SYSTEMS):
        for seed in seeds:
            measured(system, seed, epochs, out)
        batches, table = found(out, seeds)
        replace_text(out / "in_training.md", page(table, batches, epochs))
        draw(table, "rate", COLUMNS, "drift of the couplings at each batch", out / "in_training.png")
        print(system, "done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
