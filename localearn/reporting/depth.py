"""Memory against depth, where records of nets exist that differ in their depth alone."""

import json
import re
from collections import defaultdict
from typing import Any

from localearn.reporting import drawing, formatting
from localearn.reporting.comparison import Comparison
from localearn.reporting.document import Figure
from localearn.reporting.drawing import Look, short
from localearn.reporting.runs import Run


def net_depth(run: Run) -> tuple[int, str] | None:
    """Return the net's number of blocks and what nets of its kind share at every depth; None where it is not known.

    A configured `depth` or `layers`, or a list of equal `widths` (or `channels`, `hidden`), or else a name like
    `mlp_2x256` tells.
    """
    config: dict[str, Any] = dict(run.record.config["net"]) if isinstance(run.record.config.get("net"), dict) else {}
    config.pop("name", None)
    for key in ("depth", "layers"):
        if isinstance(config.get(key), int):
            depth = config.pop(key)
            return depth, json.dumps(config, sort_keys=True, default=str)
    for key in ("widths", "channels", "hidden"):  # a CNN's `hidden` are Linear layers after its channels
        widths = config.get(key)
        if isinstance(widths, list) and widths and all(width == widths[0] for width in widths):
            return len(widths), json.dumps(config | {key: widths[0]}, sort_keys=True, default=str)
    named = re.fullmatch(r"(.*?)(\d+)(x\d+.*)", run.record.net)
    return (int(named[2]), named[1] + named[3]) if named else None


def depth_figures(comparison: Comparison, looks: dict[str, Look]) -> list[Figure]:
    """Return a plot of peak memory against depth per family of nets that was run at two depths or more."""
    families: dict[tuple[str, ...], dict[str, dict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for group in comparison.groups:
        for rule in group.rules:
            for run in rule.runs:
                depth = net_depth(run)
                if depth and run.peak_memory_bytes:
                    family = (depth[1], group.dataset, group.protocol or "", str(run.batch_size), run.device_type)
                    families[family][rule.label][depth[0]].append(run.peak_memory_bytes)
    wide = [(family, rules) for family, rules in sorted(families.items()) if _depths(rules) > 1]
    return [_figure(number, family, rules, looks) for number, (family, rules) in enumerate(wide, start=1)]


def _depths(rules: dict[str, dict[int, list[float]]]) -> int:
    return max(len(depths) for depths in rules.values())


def _figure(
    number: int, family: tuple[str, ...], rules: dict[str, dict[int, list[float]]], looks: dict[str, Look]
) -> Figure:
    means = {
        rule: {depth: sum(peaks) / len(peaks) for depth, peaks in sorted(depths.items())}
        for rule, depths in rules.items()
    }
    unit = formatting.choose_unit(formatting.BYTE, [mean for depths in means.values() for mean in depths.values()])
    figure, axes = drawing.canvas(3.1, list(means))
    spoken = []
    for rule, depths in means.items():
        look = looks[rule]
        heights = [mean / unit.factor for mean in depths.values()]
        axes.plot(
            list(depths), heights, color=look.color, marker=look.marker, markeredgecolor=look.edge,
            linestyle=look.dashes, markersize=7, label=short(rule),
        )  # fmt: skip
        said = ", ".join(
            f"{formatting.plain(height)} at {depth}" for depth, height in zip(depths, heights, strict=True)
        )
        spoken.append(f"{rule} {said}")
    axes.set_xticks(sorted({depth for depths in means.values() for depth in depths}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("depth (blocks)")
    axes.set_ylabel(f"peak memory ({unit.symbol})")
    drawing.legend(figure, axes)
    of = " · ".join(word for word in (family[1], family[2] and f"{family[2]} protocol") if word)
    alt = f"Peak memory ({unit.symbol}) against depth in blocks: {'; '.join(spoken)}."
    return drawing.finish(figure, f"memory_depth-{number}", f"Peak memory against depth ({of}); means over runs.", alt)
