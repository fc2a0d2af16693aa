"""Fit scikit-learn's models, and counts of characters, to the splits of the rows in this folder.

    python experiments/tasks/baselines.py out=results/tasks

from a folder with `tinyshakespeare.txt` and `housing.csv`, see README.md.

The data, their splits and their standardisation are localearn's, so that the figures stand beside the rows' own: the
models are fitted to the training part, what they choose is chosen by the validation part, and the test part is read
once. Writes baselines.json into `out`.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor

import localearn
from localearn.cli.study import read_rows
from localearn.composition import compose
from localearn.files import replace_text
from localearn.training.building import build_data

HERE = Path(__file__).parent
SPLITS = ("train", "val", "test")
SEEDS = (0, 1, 2)


def arrays_of(row: str) -> tuple[localearn.Data, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return a row's data, and x and the target of each split as its runs have them."""
    run = next(r.run for r in read_rows(HERE) if r.name == row)
    config, _ = compose(list(run), None)
    options: Any = OmegaConf.to_container(config.dataset, resolve=True)
    data = build_data(options)
    parts = {}
    for split in SPLITS:
        (batch,) = data.batches(split, data.sizes[split])
        parts[split] = batch.x.flatten(1).numpy(), batch.target.numpy()
    return data, parts


def regression(row: str) -> Iterator[dict[str, Any]]:
    """Yield the test rmse, in the targets' unit, of ridge regression and of scikit-learn's MLP."""
    data, parts = arrays_of(row)
    assert isinstance(data.task, localearn.Regression)
    scale = np.asarray(data.task.scale)

    def rmse(model: Any, split: str) -> float:
        x, y = parts[split]
        return float((np.sqrt(((model.predict(x).reshape(y.shape) - y) ** 2).mean(0)) * scale).mean())

    x, y = parts["train"]
    fitted = [Ridge(alpha=alpha).fit(x, y) for alpha in np.logspace(-3, 4, 15)]
    best = min(fitted, key=lambda model: rmse(model, "val"))
    yield {"row": row, "model": f"Ridge, alpha {best.alpha:.3g} by validation", "rmse": [rmse(best, "test")]}
    nets = []
    for seed in SEEDS:
        net = MLPRegressor(hidden_layer_sizes=(256, 256), early_stopping=True, max_iter=500, random_state=seed)
        nets.append(net.fit(x, y.squeeze(-1)))
    yield {"row": row, "model": "MLPRegressor 2x256, early stopping", "rmse": [rmse(net, "test") for net in nets]}


def binary(row: str) -> Iterator[dict[str, Any]]:
    """Yield the test AUC of logistic regression."""
    _, parts = arrays_of(row)
    x, y = parts["train"]
    model = LogisticRegression(max_iter=1000).fit(x, y.ravel())
    x, y = parts["test"]
    yield {
        "row": row,
        "model": "LogisticRegression",
        "auc": [float(roc_auc_score(y.ravel(), model.decision_function(x)))],
    }


def picture(row: str) -> Iterator[dict[str, Any]]:
    """Yield the PSNR of the mean of the four nearest training pixels, and of the mean colour, at the test pixels."""
    data, parts = arrays_of(row)
    assert isinstance(data.task, localearn.Regression) and data.task.peak is not None
    scale, peak = np.asarray(data.task.scale), data.task.peak
    x, y = parts["train"]
    # The first two values of a row are the place itself.
    nearest = KNeighborsRegressor(4, weights="distance").fit(x[:, :2], y)
    x, true = parts["test"]
    for model, guess in (("four nearest training pixels", nearest.predict(x[:, :2])), ("mean colour", y.mean(0))):
        error = (((guess - true) * scale) ** 2).mean()
        yield {"row": row, "model": model, "psnr": [float(10 * math.log10(peak**2 / error))]}


def text(row: str) -> Iterator[dict[str, Any]]:
    """Yield the bits per character of n-gram counts, each order mixed with the one below it (Witten-Bell)."""
    data, parts = arrays_of(row)
    characters = parts["train"][0].ravel().astype(np.int64)
    test = np.concatenate([parts["test"][0][:, :1], parts["test"][1]], axis=1)  # each window's own beginning, then on
    size = data.task.outputs
    for order in (1, 2, 3, 5):
        yield {
            "row": row,
            "model": f"{order}-gram counts",
            "bits_per_character": [_bits(characters, test, order, size)],
        }


def _bits(train: np.ndarray, windows: np.ndarray, order: int, size: int) -> float:
    counts: list[dict[tuple[int, ...], dict[int, int]]] = [{} for _ in range(order)]
    values = train.tolist()
    for place, character in enumerate(values):
        for n in range(min(order, place + 1)):
            of_context = counts[n].setdefault(tuple(values[place - n : place]), {})
            of_context[character] = of_context.get(character, 0) + 1
    bits, predicted = 0.0, 0
    for window in windows.tolist():
        for place in range(1, len(window)):
            p = 1 / size
            for n in range(min(order, place + 1)):
                seen = counts[n].get(tuple(window[place - n : place]))
                if seen:
                    total, kinds = sum(seen.values()), len(seen)
                    p = (seen.get(window[place], 0) + kinds * p) / (total + kinds)
            bits -= math.log2(p)
            predicted += 1
    return bits / predicted


OF: dict[str, Callable[[str], Iterator[dict[str, Any]]]] = {
    "shakespeare-backprop": text,
    "diabetes-backprop": regression,
    "housing-backprop": regression,
    "breast_cancer-backprop": binary,
    "photo-backprop": picture,
}


def main() -> None:
    """Fit every baseline, print it and write all."""
    found = []
    for row, baseline in OF.items():
        for figures in baseline(row):
            print(figures, flush=True)
            found.append(figures)
    out = Path(sys.argv[1].removeprefix("out=") if len(sys.argv) > 1 else "results/tasks")
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "baselines.json", json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
