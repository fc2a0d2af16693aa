"""Former names of modules, importable for one release with a FutureWarning that says the new one."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# The module that holds what each former one held; all names of a former module stand in its new one.
MOVED = {
    "localearn.energy.carbon": "localearn.energy.codecarbon",
    "localearn.energy.card": "localearn.energy.nvml",
    "localearn.energy.check.bench": "localearn.energy.selftest",
    "localearn.energy.check.checks": "localearn.energy.selftest",
    "localearn.energy.check.load": "localearn.energy.selftest",
    "localearn.energy.check.neighbour": "localearn.energy.selftest",
    "localearn.energy.check.outcome": "localearn.energy.selftest",
    "localearn.energy.check.page": "localearn.energy.selftest_page",
    "localearn.energy.clock": "localearn.energy.sources",
    "localearn.energy.counter": "localearn.energy.sources",
    "localearn.energy.fake": "localearn.testing.energy",
    "localearn.energy.idle": "localearn.energy.sources",
    "localearn.energy.part": "localearn.energy.meter",
    "localearn.energy.power": "localearn.energy.sources",
    "localearn.energy.tally": "localearn.energy.meter",
    "localearn.energy.ticker": "localearn.energy.sources",
    "localearn.locks": "localearn.records.folder",
    "localearn.records.checksums": "localearn.records.folder",
    "localearn.records.energy": "localearn.records.reading",
    "localearn.reporting.assemble": "localearn.reporting.writing",
    "localearn.reporting.data": "localearn.reporting.writing",
    "localearn.reporting.depth": "localearn.reporting.plots",
    "localearn.reporting.likeness": "localearn.reporting.comparison",
    "localearn.reporting.markdown": "localearn.reporting.document",
    "localearn.reporting.metric_energy": "localearn.reporting.plots",
    "localearn.reporting.page": "localearn.reporting.document",
    "localearn.reporting.plain_text": "localearn.reporting.runs",
    "localearn.reporting.prose": "localearn.reporting.verdict",
    "localearn.reporting.reading": "localearn.reporting.runs",
}


class Finder(MetaPathFinder, Loader):
    """Find a former module where no other finder has: a module without names, which asks its new place for them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a former module, None for any other name.

        Args:
            name: the module's absolute name.
            path: unused, as is `target`; `importlib` gives both.
            target: see `path`.

        """
        return ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None: `importlib` makes an ordinary module."""

    def exec_module(self, module: ModuleType) -> None:
        """Warn of the move and forward every name to the new module."""
        former, place = module.__name__, MOVED[module.__name__]
        warnings.warn(f"{former} has moved: import {place}", FutureWarning, stacklevel=2)
        source = importlib.import_module(place)

        def forward(name: str) -> Any:
            try:
                return getattr(source, name)
            except AttributeError:
                raise AttributeError(f"module {former!r}, now {place!r}, has no attribute {name!r}") from None

        module.__doc__ = f"Moved to `{place}`."
        module.__getattr__ = forward  # type: ignore[method-assign]


def install() -> None:
    """Have former names found from here on; a second call does nothing."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
