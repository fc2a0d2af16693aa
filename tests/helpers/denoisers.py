"""Tiny nets of NoProp's own, and what they are to learn."""

import functools

from localearn import Denoiser
from localearn.testing.toys import CLASSES, Toy, toy

SMALL = {"hidden": 8, "dropout": 0.0, "steps": 2}
FORMS = {"dt": {"steps": 2}, "ct": {"steps": 8}, "fm": {"steps": 8}}


def denoiser(kind, shape, classes=CLASSES, **options):
    """Return a net of tiny blocks: kind is mlp, of rows of any shape, or cnn, of images."""
    form = options.get("form", "dt")
    own = {"embed": "mlp"} if kind == "mlp" else {"embed": "conv", "channels": (3, 4, 5)}
    return Denoiser(shape, classes, **{**SMALL, **FORMS[form], **own, **options})


@functools.cache
def rows(**options) -> Toy:
    """Return the vectors of the suite's MLP, for a net of NoProp's."""
    known = toy("mlp")
    return Toy(lambda shape=None: denoiser("mlp", shape or (6,), **options), known.batch, known.data)


@functools.cache
def images(**options) -> Toy:
    """Return the images of the suite's CNN, for a net of NoProp's."""
    known = toy("cnn")
    return Toy(lambda shape=None: denoiser("cnn", shape or (1, 4, 4), **options), known.batch, known.data)
