"""The energy of a run, as its record has it: joules with their label, by part of the machine and by window."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from localearn.records import fields
from localearn.records.fields import BadRecordError

Label = Literal["measured", "estimated", "absent"]
LABELS: tuple[Label, ...] = get_args(Label)


@dataclass(frozen=True)
class Reading:
    """Where a number of joules (or of kg CO2e) comes from. Only numbers of equal readings are averaged or compared."""

    label: Label
    source: str | None = None  # nvml, rapl, codecarbon
    part: str | None = None  # gpu, cpu, dram

    def __str__(self) -> str:
        return ", ".join(word for word in (self.label, self.source, self.part) if word)


@dataclass(frozen=True)
class Window:
    """What one part of the machine used in one named window of a run."""

    energy_j: float | None
    uncertainty_j: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One part of the machine: its reading, its idle power and its windows by name."""

    reading: Reading
    note: str | None
    idle_before_w: float | None
    idle_after_w: float | None
    windows: Mapping[str, Window]


@dataclass(frozen=True)
class Energy:
    """The energy of a run: the headline part's training joules, and every part's windows."""

    reading: Reading
    train_j: float | None
    train_net_j: float | None
    uncertainty_j: float | None
    flags: tuple[str, ...]
    parts: Mapping[str, Part]
    conditions: Mapping[str, Any]


def parse_energy(energy: Mapping[str, Any]) -> Energy:
    """Return the energy that a record describes; raise BadRecordError for a field of the wrong kind."""
    parts = {name: _part(name, part) for name, part in fields.mapping(energy, "parts").items()}
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
        raise BadRecordError(f"parts.{name} is no object")
    with fields.within(f"parts.{name}"):
        label, idle = label_of(part), fields.mapping(part, "idle_w")
        windows = fields.mapping(part, "windows")
        return Part(
            reading=Reading(label, fields.optional_text(part, "source") if label != "absent" else None, name),
            note=fields.optional_text(part, "note"),
            idle_before_w=fields.number(idle, "before"),
            idle_after_w=fields.number(idle, "after"),
            windows={window: _window(windows, window, label) for window in windows},
        )


def _window(windows: Mapping[str, Any], name: str, label: Label) -> Window:
    present = label != "absent"
    with fields.within("windows"):
        window = fields.mapping(windows, name)
    with fields.within(f"windows.{name}"):
        return Window(
            energy_j=fields.number(window, "energy_j") if present else None,
            uncertainty_j=fields.number(window, "uncertainty_j") if present else None,
            flags=fields.texts(window, "flags"),
        )


def parse_co2e(co2e: Mapping[str, Any]) -> Reading:
    """Return what a record says of its carbon, the grid being the source; raise BadRecordError as `parse_energy`."""
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
