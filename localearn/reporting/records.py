"""A run's record as reports use it: run.json and metrics.jsonl with their kinds checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from localearn.reporting import fields
from localearn.reporting.fields import BadRecordError
from localearn.reporting.plain_text import visible_tree

SCHEMA = 1
Label = Literal["measured", "estimated", "absent"]
LABELS: tuple[Label, ...] = get_args(Label)


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a number of joules (or of kg CO2e) comes from. Only numbers of equal readings are averaged or compared."""

    label: Label
    source: str | None = None  # nvml, rapl, codecarbon
    part: str | None = None  # gpu, cpu, dram

    def __str__(self) -> str:
        return ", ".join(word for word in (self.label, self.source, self.part) if word)


@dataclass(frozen=True, slots=True)
class Window:
    """What one part of the machine used in one named window of a run."""

    energy_j: float | None
    uncertainty_j: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the machine: its reading, its idle power and its windows by name."""

    reading: Reading
    note: str | None
    idle_before_w: float | None
    idle_after_w: float | None
    windows: Mapping[str, Window]


@dataclass(frozen=True, slots=True)
class Energy:
    """The energy of a run: the headline part's training joules, and every part's windows."""

    reading: Reading
    train_j: float | None
    train_net_j: float | None
    uncertainty_j: float | None
    flags: tuple[str, ...]
    parts: Mapping[str, Part]
    conditions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of metrics.jsonl; `train_s` and `train_j` are cumulative."""

    accuracy: float | None  # on the validation split, 0 to 1
    train_s: float | None
    train_j: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run. Numbers that its record does not hold are None; accuracies are from 0 to 1."""

    folder: str  # relative to the folder that the reader named
    status: str
    error: str | None
    algo: str
    rule: str | None  # the class, with its module
    dataset: str
    net: str
    seed: int
    protocol: str | None
    passes: float | None
    test_accuracy: float | None
    train_s: float | None
    samples_per_s: float | None
    train_samples: float | None
    peak_memory_bytes: float | None
    allocator_bytes: float | None
    process_bytes: float | None
    energy: Energy
    co2e_kg: float | None
    co2e: Reading
    device_type: str
    device: Mapping[str, Any]
    batch_size: float | None
    precision: str | None
    capture: str | None
    ranks: str  # how many processes trained together, and what they shared out: `2 (data)`
    step: str  # see `localearn.training.Settings`
    deterministic: bool
    fingerprint: str | None
    finished: datetime
    stages: int  # parts that are trained one after another
    resumed: int  # how many times the run was taken up again
    versions: Mapping[str, Any]
    config: Mapping[str, Any]
    epochs: tuple[Epoch, ...]

    @property
    def samples_seen(self) -> float | None:
        """Return the training samples that the run saw, passes times the size of its training split."""
        if not self.passes or not self.train_samples:
            return None
        return self.passes * self.train_samples


def parse_run(record: Mapping[str, Any], epochs: tuple[Epoch, ...], folder: str) -> Run:
    """Return the run that a decoded run.json describes.

    Where the training's joules are not known, neither are its epochs': the sum up to the last that is known would pass
    for the end of the curve, and after a resume it may be of another label.

    Raises BadRecordError for a schema other than ours, or a field of the wrong kind.
    """
    record = visible_tree(record)
    if record.get("schema") != SCHEMA:
        raise BadRecordError(f"schema {record.get('schema')!r} is unknown here (this version reads schema {SCHEMA})")
    memory, device = fields.mapping(record, "memory"), fields.mapping(record, "device")
    co2e = _co2e(fields.mapping(record, "co2e"))
    energy = _energy(fields.mapping(record, "energy"))
    seams = record.get("seams") or ()
    if not isinstance(seams, list | tuple):
        raise BadRecordError("seams is no list")
    return Run(
        folder=folder,
        status=fields.text(record, "status"),
        error=fields.optional_text(record, "error"),
        algo=_rule_name(record),
        rule=fields.optional_text(record, "rule"),
        dataset=_data_name(record),
        net=fields.text(record, "net"),
        seed=fields.integer(record, "seed"),
        protocol=fields.optional_text(record, "protocol"),
        passes=fields.number(record, "passes"),
        test_accuracy=fields.number(record, "test_accuracy"),
        train_s=fields.number(record, "train_s"),
        samples_per_s=fields.number(record, "samples_per_s"),
        train_samples=fields.number(record, "train_samples"),
        peak_memory_bytes=fields.number(record, "peak_memory_bytes"),
        allocator_bytes=fields.number(memory, "allocator_bytes"),
        process_bytes=fields.number(memory, "process_bytes"),
        energy=energy,
        co2e_kg=fields.number(record, "co2e_kg") if co2e.label != "absent" else None,
        co2e=co2e,
        device_type=fields.optional_text(device, "type") or "unknown",
        device=device,
        batch_size=fields.number(record, "batch_size"),
        precision=fields.optional_text(record, "precision"),
        capture=fields.optional_text(record, "capture"),
        ranks=_ranks(record),
        step=fields.optional_text(fields.mapping(record, "config"), "step") or "all",
        deterministic=record.get("deterministic") is True,
        fingerprint=fields.optional_text(record, "data_fingerprint"),
        stages=int(fields.number(record, "stages") or 1),
        finished=_moment(fields.optional_text(record, "finished")),
        resumed=len(seams),
        versions=fields.mapping(record, "versions"),
        config=fields.mapping(record, "config"),
        epochs=epochs if energy.train_j is not None else tuple(replace(epoch, train_j=None) for epoch in epochs),
    )


def _rule_name(record: Mapping[str, Any]) -> str:
    """Return a run's rule: the class where an older record has it under the name of a file that describes another."""
    algo = fields.text(record, "algo")
    name = (fields.optional_text(record, "rule") or "").rpartition(".")[2]
    other = name and _normal(name) != _normal(algo)
    return name if other and _ships("algo", algo) else algo


def _data_name(record: Mapping[str, Any]) -> str:
    """Return a run's data set: what was loaded where an older record has the name of the file that was chosen."""
    dataset = fields.text(record, "dataset")
    options = fields.mapping(record, "config").get("dataset")
    loaded = options.get("name") if isinstance(options, Mapping) else None
    other = isinstance(loaded, str) and loaded != dataset
    return str(loaded) if other and _ships("dataset", dataset) else dataset


def _ships(group: str, name: str) -> bool:
    """Whether localearn has a configuration of that name."""
    return name in {path.stem for path in (Path(__file__).parents[1] / "conf" / group).glob("*.yaml")}


def _normal(name: str) -> str:
    return name.replace("_", "").lower()


def parse_epoch(line: Mapping[str, Any]) -> Epoch:
    """Return the epoch that a decoded line of metrics.jsonl describes.

    Raises BadRecordError for a field of the wrong kind.
    """
    return Epoch(
        accuracy=fields.number(line, "val_accuracy"),
        train_s=fields.number(line, "train_s"),
        train_j=fields.number(line, "train_j"),
    )


def _energy(energy: Mapping[str, Any]) -> Energy:
    parts = {name: _part(name, fields.mapping(energy, "parts")[name]) for name in fields.mapping(energy, "parts")}
    reading = Reading(label_of(energy), fields.optional_text(energy, "source"), fields.optional_text(energy, "part"))
    present = reading.label != "absent"  # a number without a label is no number
    flags = set(fields.texts(energy, "flags"))
    headline = parts.get(reading.part or "")
    if headline and "train" in headline.windows:
        flags |= set(headline.windows["train"].flags)
    return Energy(
        reading=reading if present else Reading("absent"),
        train_j=fields.number(energy, "train_j") if present else None,
        train_net_j=fields.number(energy, "train_net_j") if present else None,
        uncertainty_j=fields.number(energy, "train_uncertainty_j") if present else None,
        flags=tuple(sorted(flags)),
        parts=parts,
        conditions=fields.mapping(energy, "conditions"),
    )


def _part(name: str, part: Any) -> Part:
    if not isinstance(part, dict):
        raise BadRecordError(f"energy.parts.{name} is no object")
    label, idle = label_of(part), fields.mapping(part, "idle_w")
    windows = fields.mapping(part, "windows")
    return Part(
        reading=Reading(label, fields.optional_text(part, "source") if label != "absent" else None, name),
        note=fields.optional_text(part, "note"),
        idle_before_w=fields.number(idle, "before"),
        idle_after_w=fields.number(idle, "after"),
        windows={window: _window(fields.mapping(windows, window), label) for window in windows},
    )


def _window(window: Mapping[str, Any], label: Label) -> Window:
    present = label != "absent"
    return Window(
        energy_j=fields.number(window, "energy_j") if present else None,
        uncertainty_j=fields.number(window, "uncertainty_j") if present else None,
        flags=fields.texts(window, "flags"),
    )


def _co2e(co2e: Mapping[str, Any]) -> Reading:
    label, country = label_of(co2e), fields.optional_text(co2e, "country")
    intensity = fields.number(co2e, "intensity_kg_per_kwh")
    grid = None if intensity is None else f"grid of {intensity:.3g} kg/kWh"
    return Reading(label, source=", ".join(word for word in (country, grid) if word) or None)


def label_of(record: Mapping[str, Any]) -> Label:
    """Return a record's label, "absent" where it has none; raise BadRecordError for an unknown one."""
    found = fields.optional_text(record, "label") or "absent"
    for label in LABELS:
        if found == label:
            return label
    raise BadRecordError(f"label is {found!r}, not one of {', '.join(LABELS)}")


def _ranks(record: Mapping[str, Any]) -> str:
    """Return how many processes a run had; older records are of one and do not say so."""
    count = fields.number(record, "ranks") or 1
    return "1" if count == 1 else f"{count:g} ({fields.optional_text(record, 'parallel')})"


def _moment(stamp: str | None) -> datetime:
    """Return the moment of an ISO stamp, in UTC where it names no zone; the earliest one where there is no stamp."""
    if stamp is None:
        return datetime.min.replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError as error:
        raise BadRecordError(f"finished is {stamp!r}, where an ISO date belongs") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
