"""Data sets that other packages include: nothing is downloaded, and their splits are fixed here."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from localearn.data.arrays import ArrayData
from localearn.data.checks import checked_parts
from localearn.data.partition import array_data, hold_out
from localearn.data.transforms import Normalize
from localearn.errors import UserError
from localearn.extras import torch_geometric
from localearn.tasks import Task

DIGITS_TOP = 16  # the digits' grey levels run from 0 to 16

_NUCLEUS = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip
TUMOURS = ("malignant", "benign")
# What the columns of the sets of vectors are called.
FEATURES = {
    "diabetes": ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"),
    "breast_cancer": (
        *(f"mean {name}" for name in _NUCLEUS), *(f"{name} error" for name in _NUCLEUS),
        *(f"worst {name}" for name in _NUCLEUS),
    ),
    "wine": (
        "alcohol", "malic acid", "ash", "alcalinity of ash", "magnesium", "total phenols", "flavanoids",
        "nonflavanoid phenols", "proanthocyanins", "color intensity", "hue", "od280/od315 of diluted wines", "proline",
    ),
}  # fmt: skip

_SEED = 0  # of the test splits, which nobody published: they stay the same for everyone, whatever split_seed is


def digits(folder: Path | None = None) -> dict[str, np.ndarray]:
    """Return scikit-learn's 1797 handwritten digits, (N, 8, 8) uint8 of 0..16, a stratified fifth (359) as the test.

    Args:
        folder: the folder of scikit-learn's data; None: found. Where it holds no data scikit-learn loads them.

    """
    table = _digits_table(folder or _sklearn_folder())
    images, labels = table[:, :64].reshape(-1, 8, 8), table[:, 64]
    train, test = hold_out(labels, round(0.2 * len(labels)), _SEED)
    return {"x_train": images[train], "y_train": labels[train], "x_test": images[test], "y_test": labels[test]}


def karate() -> dict[str, np.ndarray]:
    """Return Zachary's karate club: 34 members, 156 directed edges, 4 communities, each member's x a one-hot (34,).

    Stratified and fixed: 10 members are the test, 8 the validation and 16 the training split.
    """
    club: Any = torch_geometric("datasets").KarateClub()[0]
    labels = club.y.numpy()
    rest, test = hold_out(labels, 10, _SEED)
    train, val = hold_out(labels[rest], 8, _SEED)
    return {
        "x": club.x.numpy(),
        "edge_index": club.edge_index.numpy(),
        "y": labels,
        "train": rest[train],
        "val": rest[val],
        "test": test,
    }


def diabetes() -> dict[str, np.ndarray]:
    """Return scikit-learn's 442 patients with diabetes, a fifth (88) drawn at random as the test.

    x is (N, 10) float64, of their age, sex, body mass index, blood pressure and six blood values, as measured; y
    (N, 1), how far the disease had gone a year later, 25 to 346 (Efron et al., 2004).
    """
    table: Any
    values: Any
    folder = _sklearn_folder()
    files = folder and (folder / "diabetes_data_raw.csv.gz", folder / "diabetes_target.csv.gz")
    if files and all(file.is_file() for file in files):
        table, values = (np.loadtxt(file) for file in files)
    else:
        from sklearn.datasets import load_diabetes

        table, values = load_diabetes(return_X_y=True, scaled=False)
    x, y = np.asarray(table), np.asarray(values)[:, None]
    train, test = hold_out(np.zeros(len(y), dtype=np.int64), round(0.2 * len(y)), _SEED)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}


def breast_cancer() -> dict[str, np.ndarray]:
    """Return scikit-learn's 569 breast tumours, a stratified fifth (114) as the test: which of `TUMOURS` each one is.

    x is (N, 30) float64, figures of the cells' nuclei in an image, see `FEATURES`; y (N,) int64 (Street et al., 1993).
    """
    return _classified("breast_cancer")


def wine() -> dict[str, np.ndarray]:
    """Return scikit-learn's 178 wines of three growers, a stratified fifth (36) as the test.

    x is (N, 13) float64, a chemical analysis, see `FEATURES`; y (N,) int64, the grower (Forina et al., 1991).
    """
    return _classified("wine")


def _classified(name: str) -> dict[str, np.ndarray]:
    table: Any
    labels: Any
    file = {"breast_cancer": "breast_cancer.csv", "wine": "wine_data.csv"}[name]
    folder = _sklearn_folder()
    if folder and (folder / file).is_file():
        rows = np.loadtxt(folder / file, delimiter=",", skiprows=1)
        table, labels = rows[:, :-1], rows[:, -1]
    else:
        import sklearn.datasets

        table, labels = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    x, y = np.asarray(table), np.asarray(labels).astype(np.int64)
    train, test = hold_out(y, round(0.2 * len(y)), _SEED)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}


def photograph(name: str) -> Path:
    """Return the file of one of scikit-learn's photographs, 640 x 427 pixels.

    Args:
        name: "china" or "flower".

    Raises:
        UserError: where scikit-learn lacks it.

    """
    folder = _sklearn_folder()
    path = (folder.parent / "images" / f"{name}.jpg") if folder else None
    if path is None or not path.is_file():
        raise UserError(f"scikit-learn's photograph {name}.jpg is not where it should be ({path}); reinstall it")
    return path


def _sklearn_folder() -> Path | None:
    """Return the folder of scikit-learn's own data; its files are read since importing the package takes a second."""
    spec = importlib.util.find_spec("sklearn")
    return next((Path(folder, "datasets", "data") for folder in (spec and spec.submodule_search_locations) or ()), None)


def _digits_table(folder: Path | None) -> np.ndarray:
    """(1797, 65) uint8: 64 pixels and the label."""
    if folder and (folder / "digits.csv.gz").is_file():
        return np.loadtxt(folder / "digits.csv.gz", delimiter=",", dtype=np.uint8)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels]).astype(np.uint8)


def value_data(
    name: str,
    parts: Mapping[str, np.ndarray],
    task: Task,
    *,
    val_fraction: float = 0.1,
    val_size: int | None = None,
    seed: int = 0,
    normalize: Normalize = "standard",
    train_size: int | None = None,
) -> ArrayData:
    """Return a data set of values; those of a regression have mean 0 and deviation 1 in the training split.

    Args:
        name: the data set's name in records.
        parts: x_train, x_test, (N, n), and y_train, y_test, (N, D), finite; and x_val, y_val where there are.
        task: the meaning of the targets. A `Regression` is given their number, center and scale; another task stays as
            it is.
        val_fraction: the share of the training part that is held out for validation.
        val_size: the number of rows held out, which takes precedence over the fraction.
        seed: of the rows that are held out, and of train_size's.
        normalize: "standard", "unit" or "none", for x, as of `localearn.load`.
        train_size: how many training rows to use, drawn by `seed`.

    Raises:
        UserError: for an option that these parts cannot meet.

    """
    checked, _ = checked_parts(name, parts, task=task)
    return array_data(
        name,
        checked,
        task=task,
        val_fraction=val_fraction,
        val_size=val_size,
        seed=seed,
        normalize=normalize,
        train_size=train_size,
    )
