"""Runs as reports use them: found below folders, read, and reduced to the numbers that a report shows."""

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from localearn.errors import UserError
from localearn.printing import visible
from localearn.records import BadRecordError, Energy, Reading, Record, parse_record, read_history
from localearn.records.reading import decoded, parse_co2e, parse_energy
from localearn.tasks import Metric

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of metrics.jsonl.

    Attributes:
        figure: of the metric that the run is judged by, on the validation split.
        train_s: seconds of training so far.
        train_j: joules of training so far.

    """

    figure: float | None  # of the metric that the run is judged by, on the validation split
    train_s: float | None
    train_j: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run; numbers that its record does not hold are None, and fractions are from 0 to 1.

    Attributes:
        folder: relative to the folder that the reader named.
        record: its run.json.
        energy: the record's, parsed.
        co2e: the source of its carbon.
        epochs: its metrics.jsonl.

    """

    folder: str  # relative to the folder that the reader named
    record: Record
    energy: Energy
    co2e: Reading
    epochs: tuple[Epoch, ...]

    @classmethod
    def of(cls, record: Record, history: Iterable[Mapping[str, Any]], folder: str) -> "Run":
        """Return the run of a record.

        Where the training's joules are not known, neither are its epochs': the sum up to the last that is known would
        pass for the end of the curve, and after a resume it may be of another label.

        Args:
            record: the run's.
            history: the lines of its metrics.jsonl.
            folder: its name in the report.

        """
        energy = parse_energy(record.energy)
        metered, judged = energy.train_j is not None, f"val_{record.judged_by.name}"
        epochs = (
            Epoch(line.get(judged), line.get("train_s"), line.get("train_j") if metered else None) for line in history
        )
        return cls(folder, record, energy, parse_co2e(record.co2e), tuple(epochs))

    @property
    def algo(self) -> str:
        """The rule: its class where an older record has it under the name of a file that describes another."""
        algo, name = self.record.algo, self.record.rule.rpartition(".")[2]
        other = name and _normal(name) != _normal(algo)
        return name if other and _ships("algo", algo) else algo

    @property
    def dataset(self) -> str:
        """The data set: what was loaded where an older record has the name of the file that was chosen."""
        dataset, options = self.record.dataset, self.record.config.get("dataset")
        loaded = options.get("name") if isinstance(options, Mapping) else None
        other = isinstance(loaded, str) and loaded != dataset
        return str(loaded) if other and _ships("dataset", dataset) else dataset

    @property
    def metric(self) -> Metric:
        """The metric that the run is judged by."""
        return self.record.judged_by

    @property
    def test_figure(self) -> float | None:
        """That metric on the test split."""
        return self.record.metric(self.metric.name)

    @property
    def passes(self) -> float | None:
        """The passes over the training split."""
        return self._known("passes", self.record.passes)

    @property
    def train_s(self) -> float | None:
        """The seconds of training."""
        return self._known("train_s", self.record.train_s)

    @property
    def samples_per_s(self) -> float | None:
        """The training samples that were seen in a second of training."""
        return self.record.samples_per_s

    @property
    def samples_seen(self) -> float | None:
        """The training samples that the run saw: passes times the size of its training split."""
        return self.record.passes * self.record.train_samples or None

    @property
    def peak_memory_bytes(self) -> float | None:
        """The headline figure of memory, in bytes."""
        return self.record.peak_memory_bytes

    @property
    def allocator_bytes(self) -> float | None:
        """The peak of the device's allocator, in bytes."""
        return self.record.memory.get("allocator_bytes")

    @property
    def process_bytes(self) -> float | None:
        """The peak of the whole process, in bytes."""
        return self.record.memory.get("process_bytes")

    @property
    def co2e_kg(self) -> float | None:
        """The carbon of training, in kg CO2e."""
        return self.record.co2e_kg if self.co2e.label != "absent" else None

    @property
    def device_type(self) -> str:
        """The kind of device."""
        return self.record.device.get("type") or "unknown"

    @property
    def batch_size(self) -> float | None:
        """The rows of a step."""
        return self._known("batch_size", self.record.batch_size)

    @property
    def precision(self) -> str | None:
        """The precision of the products."""
        return self._known("precision", self.record.precision)

    @property
    def capture(self) -> str | None:
        """The way in which the step was captured."""
        return self._known("capture", self.record.capture)

    @property
    def ranks(self) -> str:
        """The number of processes that trained together, and what they shared out: `2 (data)`."""
        return "1" if self.record.ranks == 1 else f"{self.record.ranks} ({self.record.parallel})"

    @property
    def step(self) -> str:
        """The option `step` of the run, "all" or "block", see `localearn.training.Settings`."""
        return str(self.record.config.get("step") or "all")

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the data."""
        return self.record.data_fingerprint or None

    @property
    def stages(self) -> int:
        """The number of phases, which are trained one after another."""
        return self.record.stages

    @property
    def resumed(self) -> int:
        """The number of times that the run was resumed."""
        return len(self.record.seams)

    @property
    def finished(self) -> datetime:
        """The moment of its end, in UTC where the record names no zone; the earliest one where it has none."""
        moment = datetime.fromisoformat(self.record.finished) if self.record.finished else datetime.min
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def _known(self, name: str, value: T) -> T | None:
        return None if name in self.record.lacking else value


@functools.cache
def _ships(group: str, name: str) -> bool:
    """Return whether localearn has a configuration of that name."""
    return name in {path.stem for path in (Path(__file__).parents[1] / "conf" / group).glob("*.yaml")}


def _normal(name: str) -> str:
    return name.replace("_", "").lower()


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs that were found, in the order of their folders.

    Attributes:
        runs: those that could be read.
        notes: remarks on the reading, as on a record that was skipped.

    """

    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


def read_runs(folders: str | Path | Iterable[str | Path]) -> Runs:
    """Read every run below the folders: each folder that holds a run.json, at any depth; a search's trials are none.

    A record that is truncated, of another program or of an unknown schema is skipped with a note, as long as another
    one can be read.

    Args:
        folders: one or more, whose names begin the names of their runs.

    Raises:
        UserError: when a folder does not exist, none holds a run.json, or no record can be read.

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
            "(localearn run out=DIR trains one rule and writes one)",
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
    """Return a folder's name in the report: its path below the folder that the reader named, without what is above.

    Args:
        folder: a run's.
        top: the folder that the reader named.

    """
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


_FORMULA = re.compile(r"\s*[=+\-@\t\r]")


def visible_tree(value: Any) -> Any:
    """Return decoded JSON with `visible` applied to every text in it, keys included.

    Args:
        value: the decoded JSON.

    """
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(name)): visible_tree(element) for name, element in value.items()}
    return [visible_tree(element) for element in value] if isinstance(value, list) else value


def cell(value: Any) -> Any:
    """Return a CSV's cell; a text that a spreadsheet would take for a formula has an apostrophe before it.

    Args:
        value: the cell's.

    """
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value
