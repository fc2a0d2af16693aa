"""Find records below folders and read them; what cannot be read is named, and left out."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.errors import UserError
from localearn.records import BadRecordError, parse_record, read_history
from localearn.records.reading import decoded
from localearn.reporting.plain_text import visible_tree
from localearn.reporting.runs import Run


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs that were found, in the order of their folders, and what is to be said of the reading."""

    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


def read_runs(folders: str | Path | Iterable[str | Path]) -> Runs:
    """Read every run below the folders: each folder that holds a run.json, at any depth; a search's trials are none.

    A record that is truncated, foreign or of an unknown schema is skipped with a note, as long as one other is good.

    Raises UserError where a folder does not exist, none holds a run.json, or no record can be read.
    """
    tops = [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    runs: list[Run] = []
    notes: list[str] = []
    seen: set[Path] = set()
    for top in tops:
        for file in _records(top):
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            folder = named_below(file.parent, top)
            try:
                history, note = _history(file.parent, folder)
                runs.append(Run.of(parse_record(visible_tree(decoded(file))), history, folder))
            except BadRecordError as error:
                notes.append(f"{folder}/run.json was skipped: {error}.")
            else:
                notes += [note] if note else []
    if not seen:
        raise UserError(
            f"no run.json below {', '.join(map(str, tops)) or 'no folder'}",
            "(python -m localearn.run out=DIR trains one rule and writes one)",
        )
    if not runs:
        more = f" (and {len(notes) - 1} more)" if len(notes) > 1 else ""
        raise UserError(f"no record can be read: {notes[0]}{more}")
    return Runs(tuple(runs), tuple(notes))


def _records(top: Path) -> list[Path]:
    if not top.exists():
        raise UserError(f"there is no folder {top}")
    if not top.is_dir():
        raise UserError(f"{top} is no folder; name the folder that holds runs")
    try:
        os.listdir(top)
    except OSError as error:
        raise UserError(f"{top} cannot be read: {error.strerror}") from error
    searches = {file.parent / "trials" for file in top.rglob("tune.json")}
    return sorted(file for file in top.rglob("run.json") if not searches & set(file.parents))


def named_below(folder: Path, top: Path) -> str:
    """Return a folder as the report names it: below the folder that was asked for, and without the rest."""
    inner = folder.relative_to(top)
    return (Path(top.resolve().name) / inner).as_posix()


def _history(folder: Path, name: str) -> tuple[list[dict[str, Any]], str | None]:
    """Return the epochs before the first bad line, and a note where there is one or the file is missing."""
    try:
        history, broken = read_history(folder / "metrics.jsonl")
    except UserError:
        return [], f"{name} has no metrics.jsonl that can be read: its learning curves are absent."
    note = f"{name}/metrics.jsonl is broken from line {broken} on: its curves end before that."
    return history, note if broken else None
