"""Ask why counter-current learning leaves a dense autoencoder behind a readout of untrained blocks.

    python experiments/counter_current/autoencoder.py [out=results/counter_current] [seeds=[0,1,2]] [epochs=30]

Autoencoders of the digits (64-128-code-64, ELU and batch normalisation): each setting is trained and its code examined:
how well the best linear readout (ridge regression, solved on training rows) rebuilds test rows from it, and along how
many directions it varies. Settings change one thing of counter-current learning's recipe at a time.
"""

import functools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from localearn import MLP, Backprop, CounterCurrent, Shallow, Trainer, load
from localearn.cli.options import listed
from localearn.data import Data
from localearn.files import replace_text
from localearn.reporting.formatting import mean_and_range

QUIET: dict[str, Any] = {"energy": False, "progress": False, "device": "cpu", "batch_size": 128}
RIDGE = 1e-4  # relative to the states' mean square


@dataclass(frozen=True)
class Setting:
    """A row of the table: a rule with its options, Adam's learning rate, a multiple of the epochs, the code's width."""

    reason: str
    name: str
    rule: type[Trainer] = CounterCurrent
    options: dict[str, Any] = field(default_factory=dict)
    lr: float = 1e-3
    longer: int = 1
    code: int = 16
    norm: str = "batch"

    @property
    def key(self) -> str:
        """The name of its records' file."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.name)


BASE: dict[str, Any] = {"similarity": "difference", "norm": "batch"}


def settings() -> Iterator[Setting]:
    """Yield the rows, grouped by what they ask."""
    for code in (16, 64, 128):
        reason = "references" if code == 16 else "the bottleneck"
        yield Setting(reason, f"backprop, code {code}", Backprop, code=code)
        yield Setting(reason, f"untrained blocks, code {code}", Shallow, code=code)
        yield Setting(reason, f"counter-current, code {code}", options=BASE, code=code)
    for lr in (1e-4, 1e-2):
        yield Setting("the learning rate", f"learning rate {lr:g}", options=BASE, lr=lr)
    yield Setting("the time", "five times the epochs", options=BASE, longer=5)
    yield Setting("the time", "five times the epochs, backprop", Backprop, longer=5)
    yield Setting("the time", "five times the epochs, untrained blocks", Shallow, longer=5)
    yield Setting("the contrast", "cosines", options=BASE | {"similarity": "cosine"})
    yield Setting("the contrast", "cosines, rows not kept apart", options=BASE | {"similarity": "cosine", "apart": 0.0})
    further = BASE | {"similarity": "cosine", "apart": 5.0}
    yield Setting("the contrast", "cosines, rows kept apart 10 times as much", options=further)
    yield Setting("the contrast", "products", options=BASE | {"similarity": "product"})
    yield Setting("normalisation", "none in the second net", options=BASE | {"norm": "none"})
    yield Setting("normalisation", "none in either", options=BASE | {"norm": "none"}, norm="none")


def measured(setting: Setting, seed: int, epochs: int, data: Data) -> dict[str, Any]:
    """Train one net; return its figures and its record."""
    torch.manual_seed(seed)
    net = MLP(data.input_shape, data.task.outputs, widths=(128, setting.code), activation="elu", norm=setting.norm)
    rule = setting.rule(net, **setting.options)
    optim = functools.partial(torch.optim.Adam, lr=setting.lr)
    record = rule.fit(data, epochs=setting.longer * epochs, seed=seed, optim=optim, clip_norm=None, **QUIET)
    train, test = codes(rule, data, "train"), codes(rule, data, "test")
    return {
        "psnr": record.metric("psnr"),
        "best readout": psnr_of(data, solved(*train)(test[0]), test[1]),
        "directions": directions(test[0]),
        "run": json.loads(record.to_json()),
    }


@torch.no_grad()
def codes(rule: Trainer, data: Data, split: Any) -> tuple[Tensor, Tensor]:
    """Return the last block's output for a split, (N, code), and its targets, (N, n), in float64."""
    rule.eval()
    (batch,) = data.batches(split, 10_000)
    *_, h = rule.hidden_states(batch.x, *batch.context)
    return h.double(), batch.target.double()


def solved(h: Tensor, target: Tensor) -> Any:
    """Return the linear map, with a constant, that rebuilds the targets from h best: ridge regression."""
    mean, middle = h.mean(0), target.mean(0)
    a = h - mean
    ridge = RIDGE * a.square().sum() / a.shape[1]
    weights = torch.linalg.solve(a.T @ a + ridge * torch.eye(a.shape[1], dtype=a.dtype), a.T @ (target - middle))
    return lambda rows: (rows - mean) @ weights + middle


def psnr_of(data: Data, output: Tensor, target: Tensor) -> float:
    """Return the task's own PSNR of these outputs."""
    sums, elements = data.task.measure(output, target)
    means = {name: total / elements for name, total in sums.items()}
    return data.task.finish(means, output, target)["psnr"].item()


def directions(h: Tensor) -> float:
    """Return the participation ratio of the states' covariance: 1 where they lie on a line, n where all axes are alike.

    (sum of its eigenvalues)^2 / sum of their squares.
    """
    values = torch.linalg.eigvalsh(torch.cov(h.T))
    return (values.sum().square() / values.square().sum()).item()


def page(rows: list[tuple[Setting, list[dict[str, Any]]]], data: Data, epochs: int) -> str:
    """Return the table in Markdown: means over the seeds with the least and the most."""
    first = next(iter(rows))[1]
    train, test = (next(iter(data.batches(split, 10_000))).x.flatten(1).double() for split in ("train", "test"))
    mean = train.mean(0)
    *_, axes = torch.linalg.svd(train - mean, full_matrices=False)
    within = mean + (test - mean) @ axes[:16].T @ axes[:16]
    lines = [
        "# Counter-current learning and autoencoders",
        "",
        f"Digits, dense, 64-128-code-64, ELU, {epochs} epochs, Adam 0.001 unless a row says otherwise. PSNR of test "
        f"rows in dB: mean (least to most) over {len(first)} seeds. `as trained`: by its own readout. `best readout`: "
        "by ridge regression on its code, solved on training rows. `directions`: along how many the code varies (the "
        "participation ratio of its covariance).",
        f"The mean image alone has {psnr_of(data, mean.expand_as(test), test):.1f} dB, the pixels' 16 principal "
        f"components {psnr_of(data, within, test):.1f}.",
        "`python experiments/counter_current/autoencoder.py` writes this page; the runs are beside it.",
        "",
        "| changed | setting | as trained | best readout | directions |",
        "|---|---|---|---|---|",
    ]
    for setting, found in rows:
        cells = [mean_and_range([one[name] for one in found]) for name in ("psnr", "best readout", "directions")]
        lines.append(f"| {setting.reason} | {setting.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Measure every setting and write table.md, and each setting's figures and runs."""
    options = dict(argument.split("=", 1) for argument in arguments)
    out = Path(options.get("out", "results/counter_current"))
    seeds = [int(seed) for seed in listed(options.get("seeds", "[0,1,2]"))]
    epochs = int(options.get("epochs", 30))
    torch.set_num_threads(1)
    data = load("digits", task="autoencoding")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for setting in settings():
        rows.append((setting, [measured(setting, seed, epochs, data) for seed in seeds]))
        replace_text(out / f"{setting.key}.json", json.dumps(rows[-1][1], indent=1) + "\n")
        replace_text(out / "table.md", page(rows, data, epochs))
        print(setting.name, *(f"{one['psnr']:.2f} {one['best readout']:.2f}" for one in rows[-1][1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
