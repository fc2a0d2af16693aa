"""The pages of a bench: its table, numbers and plot."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from localearn.benching.measure import Bench, Measured, Spread
from localearn.benching.workload import Size
from localearn.errors import UserError
from localearn.files import replace_bytes, replace_text
from localearn.reporting import drawing, formatting
from localearn.training.runtime import describe_device

COLUMNS = (
    "rule",
    "step, median [quartiles]",
    "of backprop's",
    "samples/s",
    "multiply-adds, of backprop's",
    "share of the limit",
    "tensors of a step",
)
Benches = Sequence[tuple[str, Size, Bench]]


def writable(out: Path) -> None:
    """Make the folder, before anything is measured.

    Args:
        out: the folder.

    Raises:
        UserError: when nothing can be written there.

    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"out={out} cannot be written to: {error.strerror or error}") from error


def write(out: Path, benches: Benches, left_out: dict[str, str], command: str) -> Path:
    """Write bench.json, bench.md and plot.png; return the table's path.

    Args:
        out: the folder to write into.
        benches: what was measured.
        left_out: the rules that were not, with the reason.
        command: the command that repeats it.

    """
    machine = {
        **describe_device(benches[0][2].point.device),
        "torch": torch.__version__,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    record = {
        "schema": 1,
        "command": command,
        "machine": machine,
        "left_out": left_out,
        "benches": [_plain(axis, size, bench) for axis, size, bench in benches],
    }
    try:
        replace_text(out / "bench.json", json.dumps(record, indent=1) + "\n")
        replace_text(out / "bench.md", page(benches, left_out, command, machine))
        replace_bytes(out / "plot.png", plot(benches))
    except OSError as error:
        raise UserError(f"the bench cannot be written to {out}: {error.strerror or error}") from error
    return out / "bench.md"


def page(benches: Benches, left_out: dict[str, str], command: str, machine: dict[str, Any]) -> str:
    """Return bench.md: a table for the base, and one for each axis with the ratios alone.

    Args:
        benches: what was measured.
        left_out: the rules that were not, with the reason.
        command: the command that repeats it.
        machine: the device and the versions.

    """
    _, _, base = benches[0]
    point = base.point
    threads = f", {machine['threads']} threads" if machine["threads"] else ""
    columns = [*COLUMNS, *(["joules a 1,000 samples"] if base.energy else [])]
    of = f" of {point.vocabulary} tokens" if point.vocabulary else ""
    of += f", {' and '.join(map(str, point.categories))} categories" if point.categories else ""
    lines = [
        f"# {point.net}, {point.batch} rows of {'x'.join(map(str, point.input_shape))}{of}, {point.precision}"
        + (f", step={point.step}" if point.step != "all" else "")
        + (f", capture={point.capture}" if point.capture != "off" else "")
        + (f", memory_format={point.memory_format}" if point.memory_format != "auto" else ""),
        "",
        f"    {command}",
        "",
        f"{machine['name']}{threads}, torch {machine['torch']}; matrix rate {_rate(base.multiply_adds_per_s)}.",
        "",
        _row(columns),
        _row(["---"] * len(columns)),
        *(_row(_cells(measured, base)) for measured in base.rules),
        "",
        "A step is the whole update of a batch, gradients and optimizer, in every stage that the rule trains. The "
        "limit is the time of its matrix products at the measured rate; the tensors are those made in a step that "
        "lived at once, gradients among them, weights and the optimizer's not. Quartiles are over turns; a ratio is "
        "taken within a turn.",
    ]
    lines.append(_energy_text(base.energy))
    gathers = [measured.algo for measured in base.rules if measured.one_pass]
    if gathers:
        lines.append(f"Of {', '.join(gathers)} a step gathers statistics; what is solved once a pass is left out.")
    plain = [measured.algo for measured in base.rules if measured.captured == "off" and not measured.one_pass]
    if plain and point.capture != "off":
        lines.append(f"Not captured, though asked for: {', '.join(plain)}.")
    for axis in dict.fromkeys(axis for axis, _, _ in benches[1:]):
        points = _along(axis, benches)
        heads = [axis, *(str(value) for value, _ in points)]
        lines += ["", f"## Step time against {axis}, of backprop's; tensors of a step", "", _row(heads)]
        lines.append(_row(["---"] * len(heads)))
        for rule in [measured.algo for measured in base.rules]:
            row = [next((m for m in bench.rules if m.algo == rule), None) for _, bench in points]
            lines.append(_row([rule, *("–" if m is None else f"{_ratio(m)}; {_bytes(m.live_bytes)}" for m in row)]))
    lines += ["", *(f"- Left out: {rule} ({reason})." for rule, reason in left_out.items())]
    return "\n".join(lines).rstrip() + "\n"


def plot(benches: Benches) -> bytes:
    """Return a PNG of each rule's ratio at the base, with its quartiles; backprop is the line at 1.

    Args:
        benches: what was measured.

    """
    rules = [measured for measured in benches[0][2].rules if measured.algo != "backprop"]
    styles = drawing.plot_styles([("backprop", True), *((measured.algo, False) for measured in rules)])
    with drawing.style():
        figure, axes = drawing.canvas(0.9 + 0.3 * max(1, len(rules)), [])
        for place, measured in enumerate(rules):
            ratio, style = measured.ratio, styles[measured.algo]
            axes.errorbar(
                ratio.median, place, xerr=[[ratio.median - ratio.low], [ratio.high - ratio.median]],
                color=style.color, marker=style.marker, markeredgecolor=style.edge, linestyle="none", capsize=3,
            )  # fmt: skip
        ends = [end for measured in rules for end in (measured.ratio.low, measured.ratio.high)] + [0.8, 1.25]
        drawing.logarithmic(axes, max(ends) / min(ends))
        axes.set_xlim(min(ends) / 1.05, max(ends) * 1.05)  # a single value has no range to be drawn in
        axes.axvline(1, color=drawing.INK, linewidth=1)
        axes.set_yticks(range(len(rules)), [drawing.short(measured.algo) for measured in rules])
        axes.invert_yaxis()
        axes.set_xlabel("step time, of backprop's")
        return drawing.finish(figure, "bench", "", "").png


def _along(axis: str, benches: Benches) -> list[tuple[int, Bench]]:
    """Return an axis's points, the base among them, in their order."""
    points = [(getattr(size, axis), bench) for name, size, bench in benches if name in ("base", axis)]
    return sorted(points, key=lambda point: point[0])


def _cells(measured: Measured, base: Bench) -> list[str]:
    backprop = next(m for m in base.rules if m.algo == "backprop")
    step = Spread(*(1e3 * value for value in (measured.step_s.median, measured.step_s.low, measured.step_s.high)))
    return [
        measured.algo,
        f"{_three(step)} ms",
        _ratio(measured),
        f"{measured.samples_per_s:,.0f}",
        f"×{measured.multiply_adds / backprop.multiply_adds:.2f}",
        f"{100 * measured.share_of_limit:.0f} %",
        _bytes(measured.live_bytes),
        *([_joules(measured)] if base.energy else []),
    ]


def _joules(measured: Measured) -> str:
    each = measured.joules_per_sample
    return "absent" if each is None else _three(Spread(*(1e3 * value for value in vars(each).values())))


def _energy_text(energy: dict[str, Any] | None) -> str:
    if energy is None:
        return "Joules are absent: this machine shows no counter of its energy (NVML, RAPL) to be read."
    short = " Turns were too short for its updates (too_short); give a larger turn_s." if energy["too_short"] else ""
    return f"Joules are gross, {energy['label']} by {energy['source']}, part {energy['part']}. {energy['note']}{short}"


def _ratio(measured: Measured) -> str:
    return "×1" if measured.algo == "backprop" else f"×{_three(measured.ratio)}"


def _three(spread: Spread) -> str:
    median, low, high = (formatting.plain(value, 3) for value in (spread.median, spread.low, spread.high))
    return f"{median} [{low}, {high}]"


def _rate(spread: Spread) -> str:
    return f"{_three(Spread(*(value / 1e9 for value in vars(spread).values())))} billion multiply-adds a second"


def _bytes(count: int) -> str:
    unit = formatting.choose_unit(formatting.BYTE, [count])
    return f"{formatting.plain(count / unit.factor, 3)} {unit.symbol}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(axis: str, size: Size, bench: Bench) -> dict[str, Any]:
    point = bench.point
    return {
        "axis": axis,
        **vars(size),
        "net": point.net,
        "input_shape": point.input_shape,
        **({"vocabulary": point.vocabulary} if point.vocabulary else {}),
        **({"categories": point.categories} if point.categories else {}),
        "precision": point.precision,
        "step": point.step,
        "capture": point.capture,
        "memory_format": point.memory_format,
        "parameters": bench.parameters,
        "multiply_adds_per_s": vars(bench.multiply_adds_per_s),
        "energy": bench.energy,
        "rules": [
            {
                **vars(measured),
                "step_s": vars(measured.step_s),
                "ratio": vars(measured.ratio),
                "joules_per_sample": measured.joules_per_sample and vars(measured.joules_per_sample),
                "share_of_limit": measured.share_of_limit,
            }
            for measured in bench.rules
        ],
    }
