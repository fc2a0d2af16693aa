"""Where a study is kept: Optuna's own storages, with what they raise told in a line."""

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

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL = "journal:"
GRACE_BEATS = 3
ATTEMPTS = 8
ASIDE = "aside=true sets it aside and goes on in a new one with the trials' records"
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def open_storage(url: str, heartbeat_s: int, on_stale: Callable[["Study", "FrozenTrial"], None]) -> "BaseStorage":
    """Return the storage of a URL, or of a journal file after "journal:"; the file's folder is made.

    heartbeat_s: seconds between a database worker's signs of life. on_stale: is called, by one worker alone, for a
    trial whose worker has given none for three times as long. Raises UserError where it cannot be had.
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
    """Return the file that a storage is kept in, None where a server keeps it."""
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

    class Database(optuna.storages.RDBStorage):
        """Goes on beating after a beat that was lost: Optuna's thread would end, and the trial be taken for dead."""

        def record_heartbeat(self, trial_id: int) -> None:
            with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):
                super().record_heartbeat(trial_id)

    parameters = inspect.signature(optuna.storages.RDBStorage.__init__).parameters
    # Optuna 5 renamed it.
    name = "heartbeat_stale_trial_callback"
    callback: dict[str, Any] = {name if name in parameters else "failed_trial_callback": on_stale}
    for attempt in itertools.count(1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return Database(
                    re.sub("^postgres(ql)?://", "postgresql+psycopg://", url),  # the driver that [postgres] brings
                    engine_kwargs={"pool_pre_ping": True},  # a database that restarted is connected to anew
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
    """End a storage's connections."""
    storage.remove_session()
    engine = getattr(storage, "engine", None)
    if engine is not None:
        engine.dispose()


@contextlib.contextmanager
def reported(url: str) -> Iterator[None]:
    """Raise a UserError, of a line and without a password, for what a storage raises inside."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, OSError, ImportError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        first = next(iter(str(getattr(cause, "orig", None) or cause).strip().splitlines()), type(cause).__name__)
        raise UserError(f"storage={hidden(url)}: {_advice(cause, first)}") from error


def hidden(url: str) -> str:
    """Return a storage's URL with its password left out."""
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
        return f"{first}; {install_line('postgres')} brings PostgreSQL's driver"
    damaged = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF in _DAMAGED
    if damaged or isinstance(error, json.JSONDecodeError):
        return f"is damaged ({first}); {ASIDE}, or give another storage="
    if "schema" in first or "version" in first:
        return f"was made by another version of Optuna ({first}); `optuna storage upgrade` brings it up to date"
    return f"cannot be used: {first}"
