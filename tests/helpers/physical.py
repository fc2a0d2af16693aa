"""Tiny nets of opaque systems, and what they are to learn."""

import functools

from localearn import Physical
from localearn.testing.toys import CLASSES, Toy, toy


@functools.cache
def rows(**options) -> Toy:
    """Return the vectors of the suite's MLP with room for a label, for a net whose blocks hold systems."""
    known = toy("mlp")
    return Toy(
        lambda shape=None: Physical(shape or (6,), CLASSES, widths=(8, 8), **{"modes": 32, **options}),
        known.batch,
        known.data,
    )
