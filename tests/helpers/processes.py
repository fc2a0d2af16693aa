"""Processes of localearn's own, beside that of the tests."""

import os
from pathlib import Path

import localearn


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, by which another one imports the localearn of this one, on one thread."""
    root = str(Path(localearn.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **more}
