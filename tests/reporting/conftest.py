from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from localearn.reporting import read_runs, write_report
from localearn.reporting.comparison import compare

if TYPE_CHECKING:
    pass


@pytest.fixture(scope="session")
def rich_page(tmp_path_factory: pytest.TempPathFactory, factory: ModuleType) -> Path:
    """The HTML page of a report that has everything a report may have."""
    top = tmp_path_factory.mktemp("rich")
    factory.write_rich_runs(top / "runs")
    return write_report(read_runs(top / "runs"), top / "out", command="python -m localearn.compare algos=[a,b]")


@pytest.fixture
def compared(tmp_path, factory):
    """Return a function that writes records and compares them."""

    def run(*records, **options):
        for number, made in enumerate(records):
            factory.write_run(tmp_path, made, name=f"{number:03d}")
        return compare(read_runs(tmp_path), **options)

    return run


@pytest.fixture(scope="session")
def probe() -> str:
    """The script whose functions look for faults in a page: an expression that gives them by name."""
    return Path(__file__).with_name("probe.js").read_text(encoding="utf-8")
