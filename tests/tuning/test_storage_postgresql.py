"""A real PostgreSQL, started on a loopback port in a temporary folder; skipped where it is not installed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from localearn.cli import tune
from localearn.errors import UserError
from localearn.training.callbacks import Callback, attached
from localearn.tuning.search import Limits
from localearn.tuning.storage import close_storage
from tests.helpers.searches import started
from tests.marks import posix

pwd = pytest.importorskip("pwd")
pytestmark = posix

WORKERS, TRIALS = 4, 40


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs, which Debian keeps out of PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        pytest.skip(f"PostgreSQL is not installed: no {name}")
    return found


class Server:
    """A database cluster of its own, which can be stopped and started again."""

    def __init__(self, folder: Path):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # PostgreSQL does not run as root.
        self.user: dict[str, Any] = {"user": "nobody"} if os.geteuid() == 0 else {}
        if self.user:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        self._run("initdb", "--auth=trust", "--username=me", "--no-sync", "-D", str(folder / "data"))

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-o", options, "-l", log, "-w", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def database(self, name: str) -> str:
        """Make an empty database and return its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "me", name)
        return f"postgresql://me@127.0.0.1:{self.port}/{name}"

    def _run(self, name: str, *arguments: str) -> None:
        command = [program(name), *arguments]
        done = subprocess.run(command, capture_output=True, cwd="/", timeout=120, check=False, **self.user)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture(scope="module")
def server():
    for name in ("initdb", "pg_ctl", "createdb"):
        program(name)
    folder = Path(tempfile.mkdtemp(prefix="localearn-postgresql-"))  # pytest's own folders are closed to other users
    server = Server(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def opened(url: str):
    """Yield a database as Optuna's storage."""
    storage = optuna.storages.RDBStorage(url.replace("postgresql", "postgresql+psycopg"))
    try:
        yield storage
    finally:
        close_storage(storage)


def ended(workers: list[subprocess.Popen[bytes]], seconds: float) -> list[int]:
    """Wait for the workers and return their exit statuses; none is left behind."""
    deadline = time.monotonic() + seconds
    try:
        for worker in workers:
            told = worker.communicate(timeout=max(1.0, deadline - time.monotonic()))[0].decode()
            assert worker.returncode in (0, -signal.SIGKILL), told
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return [worker.returncode for worker in workers]


def kill_in_a_trial(workers: list[subprocess.Popen[bytes]], storage: Any, name: str) -> None:
    """Kill each of these workers while it runs a trial."""
    left, deadline = list(workers), time.monotonic() + 300
    while left:
        assert time.monotonic() < deadline, "no worker came to a trial"
        time.sleep(0.02)
        if name not in optuna.get_all_study_names(storage):
            continue
        study = optuna.load_study(study_name=name, storage=storage)
        trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        at_work = {trial.user_attrs.get("worker", ":").rpartition(":")[2] for trial in trials}
        for worker in [worker for worker in left if str(worker.pid) in at_work]:
            worker.send_signal(signal.SIGKILL)
            left.remove(worker)


@pytest.mark.timeout(900)
def test_of_four_workers_two_are_killed_and_every_trial_counts_once(server, tiny, tmp_path):
    url = server.database("killed")
    arguments = [*tiny, "epochs=6", f"trials={TRIALS}", "heartbeat_s=1", "study=s", f"storage={url}", "out=out"]
    with opened(url) as storage:
        workers = [started(arguments, tmp_path) for _ in range(WORKERS)]
        try:
            kill_in_a_trial(workers[:2], storage, "s")
        finally:
            statuses = ended(workers, 600)
        trials = optuna.load_study(study_name="s", storage=storage).get_trials()

    assert statuses == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]
    states = Counter(trial.state.name for trial in trials)
    assert states["COMPLETE"] + states["PRUNED"] == TRIALS
    assert states["RUNNING"] == states["WAITING"] == 0
    done = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len({trial.user_attrs["origin"] for trial in done}) == TRIALS, "a folder for each, and none twice"
    dead = {str(worker.pid) for worker in workers[:2]}
    lost = [t for t in trials if t.state.name == "FAIL" and t.user_attrs.get("worker", "").rpartition(":")[2] in dead]
    assert lost, "a worker was killed in a trial"
    gone_on_with = {trial.user_attrs["origin"] for trial in done if trial.user_attrs.get("retries")}
    assert {trial.user_attrs["origin"] for trial in lost if trial.params} <= gone_on_with


def test_workers_begin_a_study_in_an_empty_database_at_once(server, tiny, tmp_path):
    url = server.database("together")
    arguments = [*tiny, "trials=4", "study=s", f"storage={url}", "out=out"]
    assert ended([started(arguments, tmp_path) for _ in range(3)], 240) == [0, 0, 0]
    with opened(url) as storage:
        states = [trial.state.name for trial in optuna.load_study(study_name="s", storage=storage).get_trials()]
    assert states.count("COMPLETE") + states.count("PRUNED") == 4


def test_a_database_that_restarts_in_a_trial_loses_nothing_that_was_finished(server, tiny, tmp_path):
    url = server.database("restart")
    arguments = [*tiny, "trials=3", "pruner=none", "heartbeat_s=1", "study=s", f"storage={url}", f"out={tmp_path}"]
    at_once = Limits(starting_s=0.0)

    class Restarting(Callback):
        """Restarts the server at the end of the second run, before the study is told of it."""

        runs = 0

        def run_ended(self, context):
            self.runs += 1
            if self.runs == 2:
                server.stop()
                server.start()

    with attached(Restarting()):
        try:
            tune.main(arguments, limits=at_once)
        except UserError as error:  # the worker may end, in a line; the same command then goes on
            assert "\n" not in str(error)
            tune.main(arguments, limits=at_once)
    with opened(url) as storage:
        trials = optuna.load_study(study_name="s", storage=storage).get_trials()
    assert [trial.state.name for trial in trials].count("COMPLETE") == 3
