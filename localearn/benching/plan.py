"""The plan of a bench: the sizes, the rules and the options of their runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localearn.benching.workload import Size
from localearn.composition import CONF, overrides_of


@dataclass(frozen=True)
class Plan:
    """The options of a bench.

    Attributes:
        rules: their names, backprop among them.
        sizes: the first is the base; the axis of each other one is the one on which it differs from the base.
        net: its name.
        input_shape: a row's shape.
        turns: how many count.
        turn_s: seconds of each rule a turn.
        device: as in `localearn.training.Settings`, and so are `precision`, `step`, `capture` and `memory_format`.
        precision: "fp32" or "bf16".
        step: "all" or "block".
        capture: "auto", "graph", "compile" or "off".
        memory_format: "auto", "channels_last" or "contiguous".
        out: the folder to write into.
        overrides: of the runs' configuration.
        vocabulary: the number of tokens, where rows are ids.
        categories: the numbers of categories of the columns of codes.
        config_dir: a folder of the user's own configurations, if any.

    """

    rules: list[str]
    sizes: list[tuple[str, Size]]
    net: str
    input_shape: tuple[int, ...]
    turns: int
    turn_s: float
    device: str
    precision: str
    step: Literal["all", "block"]
    capture: Literal["auto", "graph", "compile", "off"]
    memory_format: Literal["auto", "channels_last", "contiguous"]
    out: Path
    overrides: list[str]
    vocabulary: int | None = None
    categories: tuple[int, ...] = ()
    config_dir: str | None = None

    def for_rule(self, rule: str, size: Size) -> list[str]:
        """Return the overrides of a run of the rule at a size: of its recipe what takes time, and no refusal.

        Args:
            rule: its name.
            size: the net's and the batch's.

        """
        widths = [] if size.depth is None else [f"net.widths=[{','.join([str(size.width)] * size.depth)}]"]
        own = overrides_of(rule, self.rules, self.overrides)
        chosen = [override for override in own if override.startswith("net=")]  # a rule may have a net of its own
        nets = chosen or [f"net={self.net}"]
        return [f"algo={rule}", *nets, "recipe=alike", *widths, *(override for override in own if override not in nets)]


def known_rules() -> list[str]:
    """Return the rules that localearn brings, backprop first."""
    names = sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))
    return ["backprop", *(name for name in names if name != "backprop")]
