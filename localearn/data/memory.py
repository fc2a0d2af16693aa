"""Synthetic sequences that need a long memory: to copy what was seen long ago, and to add two marked values."""

import math

import torch
from torch import Tensor

from localearn.data.arrays import ArrayData
from localearn.data.base import Split
from localearn.data.partition import check_seed
from localearn.errors import UserError
from localearn.tasks import LanguageModelling, Regression
from localearn.tasks.language import PADDING


def copy_memory(
    delay: int = 40,
    *,
    symbols: int = 8,
    length: int = 5,
    train_size: int = 8000,
    val_size: int = 1000,
    test_size: int = 1000,
    seed: int = 0,
) -> ArrayData:
    """Generate the copy task: symbols are shown, and after a delay they are to be output again, in their order.

        x = u_1 .. u_S  blank ... blank  cue  blank ... blank       S symbols, delay - 1 blanks, a cue and S blanks
        y = no target                  ...    u_1   ...   u_S       the last S positions

    A row is 2 S + delay token ids, of which the symbols are 0..K-1, the blank K and the cue K + 1. A net that remembers
    nothing has log2 K bits a symbol, 3 by default, and one of K right. The target was shown S + delay steps before:
    backpropagation through time that is truncated to fewer steps sends nothing back to where it was seen.
    Hochreiter, Schmidhuber (1997), as of Arjovsky, Shah, Bengio, arXiv 1511.06464, section 5.1, where S = 10, K = 8 and
    delay is 100 and more; there blanks are the targets of the other positions, which require no memory, and rows are
    drawn independently at each step.

    Args:
        delay: steps from the last symbol to the cue.
        symbols: K.
        length: S.
        train_size: the number of training rows, each drawn at random.
        val_size: the number of validation rows.
        test_size: the number of test rows, the same rows for every seed.
        seed: of the training and validation rows.

    Raises:
        UserError: for an option out of its range.

    Example:
        localearn.Backprop(localearn.Recurrent((50,), 10, vocabulary=10)).fit(localearn.data.copy_memory(40))

    """
    _check(("delay", delay, 1), ("symbols", symbols, 2), ("length", length, 1))
    blank, cue, tokens = symbols, symbols + 1, symbols + 2
    x: dict[Split, Tensor] = {}
    y: dict[Split, Tensor] = {}
    for split, size, generator in _splits(train_size, val_size, test_size, seed):
        shown = torch.randint(symbols, (size, length), generator=generator)
        x[split] = torch.full((size, 2 * length + delay), blank)
        x[split][:, :length] = shown
        x[split][:, length + delay - 1] = cue
        y[split] = torch.full_like(x[split], PADDING)
        y[split][:, -length:] = shown
    data = ArrayData("copy_memory", x, y, 0, task=LanguageModelling(tokens), vocabulary=tokens)
    data.notes = (
        f"{length} of {symbols} symbols to tell again after {delay} steps; without a memory {math.log2(symbols):.3g} "
        f"bits a symbol, and {1 / symbols:.1%} of them right",
    )
    return data


def adding(
    steps: int = 60,
    *,
    train_size: int = 8000,
    val_size: int = 1000,
    test_size: int = 1000,
    seed: int = 0,
    marked: int | None = None,
) -> ArrayData:
    """Generate the adding problem: of a sequence of values two are marked, and their sum is the output at the end.

    A row is (T, 2): values, uniform on [0, 1), and marks, 1 at two steps and 0 elsewhere; one mark lies in each half,
    at a step that is uniform there. The target is the sum of the two marked values, (1,). A net that always outputs the
    mean, 1, has a squared error of 1/6, an rmse of 0.408. The first value is T / 2 steps back or more:
    backpropagation through time that is truncated to fewer sends nothing back to where it was seen. A GRU learns it by
    such a derivative all the same, if less well: a second mark near the end teaches all that a first one far from it
    takes. Where `marked` leaves the last steps without marks, nothing does (experiments/long_memory).
    Hochreiter, Schmidhuber (1997), as of Arjovsky, Shah, Bengio, arXiv 1511.06464, section 5.2, where rows are drawn
    again at each step.

    Args:
        steps: T, 2 or more.
        train_size: the number of training rows, each drawn at random.
        val_size: the number of validation rows.
        test_size: the number of test rows, the same rows for every seed.
        seed: of the training and validation rows.
        marked: only the first so many steps are marked, one of them in each half of these; None: T, all of them.

    Raises:
        UserError: for an option out of its range.

    Example:
        localearn.Backprop(localearn.Recurrent((60, 2), 1, cell="lstm")).fit(localearn.data.adding(60))

    """
    _check(("steps", steps, 2))
    within = steps if marked is None else marked
    _check(("marked", within, 2))
    if within > steps:
        raise UserError(f"marked={marked} is more than a row's {steps} steps")
    half = within // 2
    x: dict[Split, Tensor] = {}
    y: dict[Split, Tensor] = {}
    for split, size, generator in _splits(train_size, val_size, test_size, seed):
        values = torch.rand(size, steps, generator=generator)
        first = torch.randint(half, (size, 1), generator=generator)
        second = torch.randint(half, within, (size, 1), generator=generator)
        marks = torch.zeros(size, steps).scatter_(1, torch.cat([first, second], dim=1), 1)
        x[split] = torch.stack([values, marks], dim=2)
        y[split] = (values * marks).sum(1, keepdim=True)
    # What is known of the sum, and not what its rows happen to have: mean 1, variance 2 / 12.
    task = Regression(1, center=(1.0,), scale=(math.sqrt(1 / 6),))
    y = {split: (sums - 1) / math.sqrt(1 / 6) for split, sums in y.items()}
    data = ArrayData("adding", x, y, 0, task=task)
    data.feature_names, data.target_names = ("value", "mark"), ("sum",)
    of = f"{steps} values" if marked is None else f"the first {marked} of {steps} values"
    data.notes = (f"two of {of} to add; without a memory the rmse is {math.sqrt(1 / 6):.3f}",)
    return data


def _splits(train: int, val: int, test: int, seed: int) -> list[tuple[Split, int, torch.Generator]]:
    """Return each split with its rows and its generator; the test's does not depend on the user's seed."""
    _check(("train_size", train, 1), ("val_size", val, 1), ("test_size", test, 1))
    check_seed("seed", seed)
    of = {"train": 3 * seed + 1, "val": 3 * seed + 2, "test": 0}
    sizes: dict[Split, int] = {"train": train, "val": val, "test": test}
    return [(split, size, torch.Generator().manual_seed(of[split])) for split, size in sizes.items()]


def _check(*options: tuple[str, int, int]) -> None:
    for name, value, least in options:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name} must be a whole number, {least} or more, not {value!r}")
