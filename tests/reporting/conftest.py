import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from localearn.reporting import read_runs, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def rich_page(tmp_path_factory: pytest.TempPathFactory, factory: ModuleType) -> Path:
    """The HTML page of a report that has everything a report may have."""
    top = tmp_path_factory.mktemp("rich")
    factory.write_rich_runs(top / "runs")
    return write_report(read_runs(top / "runs"), top / "out", command="python -m localearn.compare algos=[a,b]")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium; skipped, with the reason, where it or Playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed: no chromium or google-chrome")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def probe() -> str:
    """The script whose functions look for faults in a page: an expression that gives them by name."""
    return Path(__file__).with_name("probe.js").read_text(encoding="utf-8")
