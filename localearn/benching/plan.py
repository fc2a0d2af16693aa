"""The sizes and the rules of a bench, read from its command line."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from localearn import cli
from localearn.arguments import listed, overrides_of, refuse_other_rules, whole
from localearn.benching.workload import Size
from localearn.errors import UserError, suggestion

OWN = ("rules", "width", "depth", "batch", "widths", "depths", "batches", "input", "turns", "turn_s", "device", "out",
       "precision", "net", "step", "capture", "memory_format", "vocabulary", "categories",
       "debug")  # fmt: skip
DEFAULTS = {"width": "2000", "depth": "3", "batch": "512", "turns": "7", "turn_s": "1.0", "input": "[3072]"}
QUICK = {"width": "1000", "batch": "256", "turns": "3", "turn_s": "0.2", "depths": "[1,8]"}
AXES = {"widths": "width", "depths": "depth", "batches": "batch"}


@dataclass(frozen=True)
class Plan:
    """What is benched: the sizes, the first of them the base, and the axis on which each other one differs from it."""

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

    def for_rule(self, rule: str, size: Size) -> list[str]:
        """Return the overrides of a run of the rule at a size: of its recipe what takes time, and no refusal."""
        widths = [] if size.depth is None else [f"net.widths=[{','.join([str(size.width)] * size.depth)}]"]
        own = overrides_of(rule, self.rules, self.overrides)
        nets = [word for word in own if word.startswith("net=")] or [f"net={self.net}"]  # a rule may have its own
        return [f"algo={rule}", *nets, "recipe=alike", *widths, *(word for word in own if word not in nets)]


def parse(arguments: list[str]) -> Plan:
    """Read the command line; raise UserError for what is unknown, out of range or does not go together."""
    own: dict[str, str] = {}
    overrides = []
    given = [argument for argument in arguments if argument != "--quick"]
    for argument in given:
        name, equals, value = argument.partition("=")
        if not equals:
            raise UserError(f"cannot read {argument!r}; write key=value, say rules=[backprop,mono_forward]")
        if name in OWN:
            own[name] = value
        else:
            overrides.append(argument)
    mlp = own.get("net", "mlp") == "mlp"
    if not mlp:
        wrong = next((name for name in ("width", "depth", "widths", "depths") if name in own), None)
        if wrong:
            raise UserError(f"{wrong}= is the MLP's; give net={own['net']}'s sizes by net.KEY=VALUE")
        if "input" not in own:
            raise UserError(f"net={own['net']} needs its rows' shape, say input=[3,32,32]")
    own = DEFAULTS | (QUICK if "--quick" in arguments else {}) | own
    if not mlp:
        own.pop("depths", None)
    base = Size(_sized("width", own) if mlp else None, _sized("depth", own) if mlp else None, _sized("batch", own))
    sizes = [("base", base)]
    for axis, name in AXES.items():
        for value in listed(own[axis]) if axis in own else []:
            size = replace(base, **{name: whole(axis, value)})
            sizes += [(name, size)] if size != base else []
    rules = listed(own["rules"]) if "rules" in own else known_rules()
    for rule in rules:
        if rule not in known_rules():
            raise UserError(f"no rule {rule!r}{suggestion(rule, known_rules())}; there are {', '.join(known_rules())}")
    if "backprop" not in rules:
        rules = ["backprop", *rules]
    refuse_other_rules(overrides, rules, f"rules={own['rules']}" if "rules" in own else "the rules")
    shape = tuple(whole("input", part) for part in own["input"].strip("[]()").split(","))
    vocabulary = whole("vocabulary", own["vocabulary"]) if "vocabulary" in own else None
    return Plan(
        rules=rules,
        sizes=sizes,
        net=own.get("net", "mlp"),
        input_shape=shape,
        turns=_sized("turns", own),
        turn_s=_seconds(own["turn_s"]),
        device=own.get("device", "auto"),
        precision=_choice("precision", own, ("fp32", "bf16")),
        step=_choice("step", own, ("all", "block")),
        capture=_choice("capture", own, ("off", "auto", "graph", "compile")),
        memory_format=_choice("memory_format", own, ("auto", "channels_last", "contiguous")),
        out=Path(own.get("out", "results/bench")).expanduser(),
        overrides=overrides,
        vocabulary=vocabulary,
        categories=_categories(own, shape, vocabulary),
    )


def _categories(own: dict[str, str], shape: tuple[int, ...], vocabulary: int | None) -> tuple[int, ...]:
    """Return the columns' numbers of categories; raise UserError where rows of that shape cannot be ids or codes."""
    if vocabulary is not None and len(shape) > 1:
        raise UserError(
            f"vocabulary= is of rows of so many tokens, and input={own['input']} has more sides; use input=[T]"
        )
    if "categories" not in own:
        return ()
    if vocabulary is not None:
        raise UserError("vocabulary= is of tokens, categories= of a table's columns; give one of them")
    categories = tuple(whole("categories", part) for part in own["categories"].strip("[]()").split(","))
    if len(shape) > 1 or len(categories) > max(shape):
        raise UserError(f"categories= are of the first columns of a row, and input={own['input']} has fewer of them")
    return categories


def known_rules() -> list[str]:
    """Return the rules that localearn brings, backprop first."""
    names = sorted(path.stem for path in (cli.CONF / "algo").glob("*.yaml"))
    return ["backprop", *(name for name in names if name != "backprop")]


def _sized(name: str, own: dict[str, str]) -> int:
    return whole(name, own[name])


def _choice(name: str, own: dict[str, str], choices: tuple[str, ...]) -> Any:
    """Return the value that was given of these, the first of them where none was."""
    value = own.get(name, choices[0])
    if value not in choices:
        raise UserError(f"{name} is {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}")
    return value


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise UserError(f"turn_s takes seconds above 0 and below 3600, not {text!r}")
    return seconds
