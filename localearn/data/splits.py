"""Which rows are held out: drawn once from a seed, every class in proportion."""

import numpy as np

from localearn.errors import UserError


def hold_out(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows in two by their (N,) labels; return the indices of the rest, (N - size,), and of the held, (size,).

    Both ascend. Each class gives its share, to the nearest row: within a class of n rows in random order, row r
    stands at (r + 1/2) / n, and the `size` rows that stand lowest over all classes are held.
    """
    # RandomState, because its stream is frozen for good while that of default_rng may change with numpy's version.
    order = np.random.RandomState(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    ranked = order[np.argsort(place[order], kind="stable")]
    return np.sort(ranked[size:]), np.sort(ranked[:size])


FOLDS = 5


def fold_of(rows: int, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the training, validation and test rows of one of five folds, (M,) each, ascending: 64, 16 and 20 %.

    Whatever their labels, rows are drawn as ForwardGNN's authors draw a graph's nodes (arXiv 2403.11004), to the row:
    by scikit-learn's `KFold(5, shuffle=True, random_state=101)`, and of what a fold leaves a fifth for validation by
    `train_test_split(test_size=0.2, random_state=127 * fold)`.

    Raises UserError for a fold that there is not, and for fewer than 10 rows.
    """
    if not 0 <= fold < FOLDS:
        raise UserError(f"fold is {fold}; it must lie between 0 and {FOLDS - 1}")
    if rows < 2 * FOLDS:
        raise UserError(f"{rows} nodes are too few for {FOLDS} folds; leave fold out")
    order = np.arange(rows)
    np.random.RandomState(101).shuffle(order)
    sizes = np.full(FOLDS, rows // FOLDS)
    sizes[: rows % FOLDS] += 1
    start = int(sizes[:fold].sum())
    tested = np.zeros(rows, dtype=bool)
    tested[order[start : start + sizes[fold]]] = True
    rest = np.flatnonzero(~tested)
    drawn = np.random.RandomState(127 * fold).permutation(len(rest))
    held = -(-len(rest) // FOLDS)
    return np.sort(rest[drawn[held:]]), np.sort(rest[drawn[:held]]), np.flatnonzero(tested)


_SEEDS = 2**32  # numpy's seeds end there


def check_seed(option: str, seed: int) -> None:
    """Raise UserError, which names the option, unless the seed is one of numpy's."""
    if not 0 <= seed < _SEEDS:
        raise UserError(f"{option} is {seed}; it must lie between 0 and {_SEEDS - 1}")


def check_fraction(name: str, fraction: float) -> None:
    """Raise UserError, which names the option `<name>_fraction`, unless the fraction lies between 0 and 1."""
    if not 0 < fraction < 1:
        raise UserError(f"{name}_fraction is {fraction}; it must lie between 0 and 1, both excluded")


def held_size(name: str, rows: int, fraction: float, size: int | None = None, where: str = "") -> int:
    """Return how many of `rows` are held: `size` where it is given, else the fraction to the nearest row.

    `name` is the option's stem in messages ("val" for val_fraction and val_size), `where` the rows' source. Raises
    UserError where the fraction is not between 0 and 1 or where one side would be empty.
    """
    check_fraction(name, fraction)
    option = f"{name}_fraction={fraction}" if size is None else f"{name}_size={size}"
    told = f"{where}: " if where else ""
    held = round(rows * fraction) if size is None else size
    if not 1 <= held < rows:
        raise UserError(
            f"{told}{option} holds out {held} of {rows} training rows; between 1 and {rows - 1} must be held out"
            if rows > 1
            else f"{told}{option} cannot split {rows} training row in two; at least 2 rows are needed"
        )
    return held
