"""Find records below folders and read them; what cannot be read is named, and left out."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.errors import UserError
from localearn.files import UnreadableError, read_json
from localearn.reporting.fields import BadRecordError
from localearn.reporting.records import Epoch, Run, parse_epoch, parse_run


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
                epochs, note = _epochs(file.with_name("metrics.jsonl"), folder)
                runs.append(parse_run(decoded(file), epochs, folder))
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


def decoded(file: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; raise BadRecordError where it holds none."""
    try:
        return read_json(file)
    except UnreadableError as error:
        raise BadRecordError(f"it {error.reason}") from error


def _epochs(file: Path, folder: str) -> tuple[tuple[Epoch, ...], str | None]:
    """Return the epochs before the first bad line, and a note where there is one or the file is missing."""
    try:
        if not file.is_file():
            raise OSError
        lines = file.read_bytes().splitlines()
    except OSError:
        return (), f"{folder} has no metrics.jsonl that can be read: its learning curves are absent."
    epochs: list[Epoch] = []
    for number, line in enumerate(lines, start=1):
        try:
            decoded = json.loads(line)
            if not isinstance(decoded, dict):
                raise BadRecordError("no object")
            epochs.append(parse_epoch(decoded))
        except (ValueError, RecursionError):  # BadRecordError, JSONDecodeError and UnicodeDecodeError are ValueErrors
            return tuple(epochs), f"{folder}/metrics.jsonl is broken from line {number} on: its curves end before that."
    return tuple(epochs), None
