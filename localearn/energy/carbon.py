"""Kilograms of CO2 equivalent, always an estimate: joules times a country's mean grid intensity."""

import difflib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.errors import UserError

JOULES_PER_KWH = 3.6e6
NEAREST = 3
GRID_FILE = Path("data/private_infra/global_energy_mix.json")


@dataclass(frozen=True, slots=True)
class Grid:
    """A country's grid: its ISO 3166-1 alpha-3 code, kg CO2e per kWh, and the year of that figure."""

    country: str
    intensity_kg_per_kwh: float
    year: int | None

    def kg(self, energy_j: float) -> float:
        """Return the kg CO2e of so many joules."""
        return energy_j / JOULES_PER_KWH * self.intensity_kg_per_kwh


def grid(country: str) -> Grid:
    """Return the grid of a country from CodeCarbon's own table, without importing CodeCarbon.

    CodeCarbon takes the world's average, without a word, for a code that it does not know. So an unknown one raises
    `UserError` here, with the nearest code or the code of the country so named.
    """
    table = _table()
    code = country.strip().upper()
    entry = table.get(code, {})
    if entry.get("carbon_intensity") is None:
        raise UserError(
            f"energy.country={country!r} is no country code (ISO 3166-1 alpha-3, such as POL) "
            f"with a known grid intensity{_nearest(code, table)}"
        )
    return Grid(code, entry["carbon_intensity"] / 1000, entry.get("year"))


def _nearest(code: str, table: dict[str, dict[str, Any]]) -> str:
    """Return `; did you mean 'POL' (Poland) ...?`: the country so named, or else so begun, then the nearest codes."""
    names = {iso: str(row.get("country_name", "")) for iso, row in table.items()}
    if not code:
        return ""
    named = [iso for iso, name in names.items() if name.upper() == code]
    begun = [iso for iso, name in names.items() if name.upper().startswith(code)]
    near = named or [*begun, *difflib.get_close_matches(code, table, n=NEAREST, cutoff=0.3)]
    told = [f"{iso!r} ({names[iso]})" for iso in dict.fromkeys(near)][:NEAREST]
    return f"; did you mean {' or '.join(told)}?" if told else ""


def _table() -> dict[str, dict[str, Any]]:
    package = importlib.util.find_spec("codecarbon")
    if package is None or package.origin is None:
        raise UserError("energy.country needs the package codecarbon, which knows the grids: pip install codecarbon")
    path = Path(package.origin).parent / GRID_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"energy.country: CodeCarbon's table of grids cannot be read ({error})") from error
