"""Reading the studies that a search left."""

from pathlib import Path

import optuna
from sqlalchemy.pool import NullPool


def sqlite(path: Path) -> optuna.storages.RDBStorage:
    """Return the storage in a file, which holds no connection between two queries: Python 3.13 warns of an open one."""
    return optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"poolclass": NullPool})


def study_of(out: Path) -> optuna.Study:
    """Return the one study in out/study.db."""
    storage = sqlite(out / "study.db")
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage)
