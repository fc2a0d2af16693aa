"""Where a study is kept: Optuna's own storages, with what they raise told in a line."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localearn.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL = "journal:"
GRACE_BEATS = 3


def open_storage(url: str, heartbeat_s: int, on_stale: Callable[["Study", "FrozenTrial"], None]) -> "BaseStorage":
    """Return the storage of a URL, or of a journal file after "journal:"; the file's folder is made.

    heartbeat_s: seconds between a database worker's signs of life. on_stale: is called, by one worker alone, for a
    trial whose worker has given none for three times as long. Raises UserError where it cannot be had.
    """
    import optuna

    with reported(url):
        if url.startswith(JOURNAL):
            from optuna.storages.journal import JournalFileBackend

            path = Path(url.removeprefix(JOURNAL)).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        if url.startswith("sqlite:///") and ":memory:" not in url:
            Path(url.removeprefix("sqlite:///")).expanduser().parent.mkdir(parents=True, exist_ok=True)
        parameters = inspect.signature(optuna.storages.RDBStorage.__init__).parameters
        # Optuna 5 renamed it.
        name = "heartbeat_stale_trial_callback"
        callback: dict[str, Any] = {name if name in parameters else "failed_trial_callback": on_stale}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs={"pool_pre_ping": True},  # a database that restarted in between is connected to anew
                heartbeat_interval=heartbeat_s,
                grace_period=GRACE_BEATS * heartbeat_s,
                **callback,
            )


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
        return f"{first}; pip install 'localearn[postgres]' brings PostgreSQL's driver"
    if "schema" in first or "version" in first:
        return f"was made by another version of Optuna ({first}); `optuna storage upgrade` brings it up to date"
    return f"cannot be used: {first}"
