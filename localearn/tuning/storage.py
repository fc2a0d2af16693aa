"""Storage of a study: Optuna's own storages, with errors of one line; one that is damaged is set aside."""

import contextlib
import inspect
import itertools
import json
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from localearn.errors import UserError
from localearn.extras import install_line
from localearn.printing import say
from localearn.records.folder import LockedError, locked
from localearn.tuning.plan import Plan

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL = "journal:"
GRACE_BEATS = 3
ATTEMPTS = 8
ASIDE = "aside=true sets it aside and goes on in a new one with the trials' records"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# SQLite's own files next to a database, which belong to the one that they were written for.
_SIDE_FILES = ("", "-journal", "-wal", "-shm")


def open_storage(url: str, heartbeat_s: int, on_stale: Callable[["Study", "FrozenTrial"], None]) -> "BaseStorage":
    """Return the storage of a URL, or of a journal file after "journal:"; the file's folder is made.

    Args:
        url: SQLAlchemy's, or "journal:" and a path.
        heartbeat_s: seconds between a database worker's heartbeats.
        on_stale: is called, by one worker alone, for a trial whose worker has sent none for three times as long.

    Raises:
        UserError: when it cannot be opened.

    """
    with reported(url):
        path = file_of(url)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        if url.startswith(JOURNAL):
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            return JournalStorage(JournalFileBackend(str(path)))
        return _database(url, heartbeat_s, on_stale)


def file_of(url: str) -> Path | None:
    """Return the file that a storage is in, None where a server has it.

    Args:
        url: as of `open_storage`.

    """
    if url.startswith(JOURNAL):
        return Path(url.removeprefix(JOURNAL)).expanduser()
    if not url.startswith("sqlite:///") or ":memory:" in url:
        return None
    from sqlalchemy import make_url

    path = make_url(url).database or ""
    return Path(unquote(path.removeprefix("file:")) if path.startswith("file:") else path).expanduser()


def _database(url: str, heartbeat_s: int, on_stale: Callable[["Study", "FrozenTrial"], None]) -> "BaseStorage":
    import optuna
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    class Database(optuna.storages.RDBStorage):
        """Goes on beating after a beat that was lost: Optuna's thread would end, and the trial be taken for dead."""

        def record_heartbeat(self, trial_id: int) -> None:
            with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                super().record_heartbeat(trial_id)

    parameters = inspect.signature(optuna.storages.RDBStorage.__init__).parameters
    # Optuna 5 renamed it.
    name = "heartbeat_stale_trial_callback"
    callback: dict[str, Any] = {name if name in parameters else "failed_trial_callback": on_stale}
    engine: dict[str, Any] = {"pool_pre_ping": True}  # a database that restarted is connected to again
    if file_of(url) is not None:
        engine["poolclass"] = NullPool  # no connection to a file outlives a query, nor a constructor that raises
    for attempt in itertools.count(1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return Database(
                    re.sub("^postgres(ql)?://", "postgresql+psycopg://", url),  # the driver that [postgres] brings
                    engine_kwargs=engine,
                    heartbeat_interval=heartbeat_s,
                    grace_period=GRACE_BEATS * heartbeat_s,
                    **callback,
                )
        except (IntegrityError, ProgrammingError, OperationalError, optuna.exceptions.StorageInternalError) as error:
            # Workers that begin at once all make the tables, and all but one fail at it.
            if attempt == ATTEMPTS or not re.search(
                "exist|unique|duplicate|locked", f"{error} {error.__cause__}", re.I
            ):
                raise
            time.sleep(0.2 * attempt)
    raise AssertionError("unreachable")


def close_storage(storage: "BaseStorage") -> None:
    """End a storage's connections.

    Args:
        storage: what `open_storage` returned.

    """
    storage.remove_session()
    engine = getattr(storage, "engine", None)
    if engine is not None:
        engine.dispose()


@contextlib.contextmanager
def reported(url: str) -> Iterator[None]:
    """Raise a UserError of one line, without a password, for what a storage raises in the block.

    Args:
        url: the storage's.

    Raises:
        UserError: when the storage cannot be read or written.

    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, OSError, ImportError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        first = next(iter(str(getattr(cause, "orig", None) or cause).strip().splitlines()), type(cause).__name__)
        raise UserError(f"storage={hidden(url)}: {_advice(cause, first)}") from error


def hidden(url: str) -> str:
    """Return a storage's URL with its password left out.

    Args:
        url: as of `open_storage`.

    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return url


def _advice(error: BaseException, first: str) -> str:
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    if isinstance(error, NoSuchModuleError | ArgumentError):
        return (
            "is no URL of a database, say sqlite:///study.db, postgresql://user@host/name or journal:/shared/study.log"
        )
    if isinstance(error, ImportError):
        cause = error.__cause__ or error.__context__ or error  # Optuna's own error does not name the driver
        failed = (
            "is missing"
            if isinstance(cause, ModuleNotFoundError)
            else f"cannot be imported ({str(cause).splitlines()[0]})"
        )
        return f"psycopg {failed}; {install_line('postgres')} brings PostgreSQL's driver"
    damaged = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF in _DAMAGED
    if damaged or isinstance(error, json.JSONDecodeError):
        return f"is damaged ({first}); {ASIDE}, or give another storage="
    if "schema" in first or "version" in first:
        return f"was made by another version of Optuna ({first}); `optuna storage upgrade` brings it up to date"
    return f"cannot be used: {first}"


def set_aside(plan: Plan) -> None:
    """Rename the file of a search's storage where it is damaged or holds no study, to a name that nothing has.

    Args:
        plan: the search's.

    Raises:
        UserError: when a worker is still at a trial.

    """
    path = file_of(plan.storage)
    if path is None or not path.is_file():
        return
    fault = _fault_of_journal(path) if plan.storage.startswith(JOURNAL) else _fault(path, plan.study)
    if fault is None:
        return
    for lock in sorted((plan.out / "trials").glob("*.lock")):
        try:
            with locked(lock, wait=False):
                pass
        except LockedError:
            raise UserError(f"{path} is damaged, and a worker is at trial {lock.stem}; end it first") from None
    number = 1
    while any(_spare(path, number, end).exists() for end in _SIDE_FILES):
        number += 1
    for end in _SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(_spare(path, number, end))
    say(f"{path} is set aside as {_spare(path, number, '').name}: {fault}", error=True)


def _spare(path: Path, number: int, end: str) -> Path:
    return path.with_name(f"{path.stem}.damaged-{number}{path.suffix}{end}")


def _fault(path: Path, study: str) -> str | None:
    """Return why a search cannot go on with an SQLite database; None where it can, or where others' studies are there.

    Raises UserError where that cannot be seen, as of a locked one.
    """
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            (result,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if result != "ok":
                return result.splitlines()[-1]
            names = [name for (name,) in database.execute("SELECT study_name FROM studies")]
            (objectives,) = database.execute("SELECT count(*) FROM study_directions").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return "it holds no study"
        raise UserError(f"{path} cannot be inspected: {error}") from error
    except sqlite3.DatabaseError as error:
        return str(error)
    if not names:
        return "it holds no study"
    return "its study has no objective" if names == [study] and not objectives else None


def _fault_of_journal(path: Path) -> str | None:
    """Return why Optuna cannot read a journal; an empty one is written on."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            json.loads(line)
        except ValueError:
            if line.endswith(b"\n"):  # else it was being written when its worker was killed, and Optuna reads over it
                return f"line {number} is no JSON"
    return None
