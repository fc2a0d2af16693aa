"""Runs in this process or in one of their own, small enough that many of them fit into a test."""

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from localearn.cli import run
from localearn.cli.errors import run_command
from localearn.training import capture
from tests.helpers import factory as factory_of_records
from tests.helpers.processes import environment
from tests.helpers.tape import TapeGraph

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# What starts processes, ranks, a PostgreSQL server or a Chromium: a test of these is slow.
SLOW_FIXTURES = {"process", "launch", "ranks_by_hand", "server", "browser"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they use, before any is left out by its marks."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


TINY = ("dataset.train_size=60", "net.widths=[12,10]", "batch_size=16", "epochs=3", "progress=false")
TIMES = ("train_s", "train_j", "samples_per_s")


@dataclass
class Ended:
    """How a run in this process ended."""

    status: int
    out: str
    err: str


class Network(urllib.request.BaseHandler):
    """Answers what urllib is asked for, in place of the network."""

    def __init__(self, answer: Callable[[urllib.request.Request], Any]):
        self.answer = answer

    def default_open(self, request: urllib.request.Request) -> Any:
        return self.answer(request)


@pytest.fixture
def network():
    """Have urllib be answered by a function of the request, which returns a response or raises."""

    def answered_by(answer: Callable[[urllib.request.Request], Any]) -> None:
        opener = urllib.request.OpenerDirector()
        opener.add_handler(Network(answer))
        urllib.request.install_opener(opener)

    yield answered_by
    urllib.request.install_opener(None)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def no_network(network):
    """Have no host be reached."""

    def unreachable(request: urllib.request.Request) -> NoReturn:
        raise urllib.error.URLError("no route to host")

    network(unreachable)


@pytest.fixture
def door(tmp_path, monkeypatch, capsys):
    """Run `python -m localearn.run` with these arguments in this process, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def enter(*arguments: str) -> Ended:
        status = run_command(run.main, arguments)
        told = capsys.readouterr()
        return Ended(status, told.out, told.err)

    return enter


@pytest.fixture
def tiny(door):
    """Run on a few rows of the digits, without energy unless it is asked for."""

    def enter(*arguments: str) -> Ended:
        energy = () if any(a.startswith("energy.") for a in arguments) else ("energy.enabled=false",)
        return door(*TINY, *energy, *arguments)

    return enter


@pytest.fixture
def process(tmp_path):
    """Start `python -m localearn.run` with these arguments as a process of its own, in the test's folder."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "localearn.run", *arguments],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def record_of(folder: Path | str) -> dict[str, Any]:
    """Return a run's record, which must be JSON in the strict sense."""
    return json.loads((Path(folder) / "run.json").read_text(), parse_constant=pytest.fail)


def history_of(folder: Path | str) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl."""
    text = (Path(folder) / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the history without what is another each time."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in history]


def net_of(folder: Path | str) -> bytes:
    """Return the trained net's file."""
    return (Path(folder) / "net.safetensors").read_bytes()


@pytest.fixture
def read():
    """Give the readers of a run's files to tests, which cannot import this module."""

    class Readers:
        record = staticmethod(record_of)
        history = staticmethod(history_of)
        timeless = staticmethod(timeless)
        net = staticmethod(net_of)

    return Readers


@pytest.fixture
def stand_in(monkeypatch):
    """Have graphs be recorded on the CPU, by what keeps no more than a card does; return its class, which counts."""
    monkeypatch.setattr(capture, "make_graph", TapeGraph)
    return TapeGraph


@pytest.fixture(scope="session")
def factory() -> ModuleType:
    """Return the module of synthetic records."""
    return factory_of_records


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Start a headless Chromium; skip, with the reason, where it or Playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed: no chromium or google-chrome")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()
