"""`python -m localearn.bench`: every rule's step beside backprop's, on one net, in one process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localearn.benching.plan import Plan, known_rules
from localearn.benching.workload import Size
from localearn.cli.options import listed, refuse_other_rules, whole
from localearn.composition import compose
from localearn.errors import Unsupported, UserError, suggestion
from localearn.printing import say

if TYPE_CHECKING:
    import torch

    from localearn.benching.measure import Bench
    from localearn.energy import Counter

HELP = """\
python -m localearn.bench [rules=[A,B]] [width=2000 depth=3 batch=512] [out=results/bench] [--quick] [key=value ...]
python -m localearn.bench parallel [key=value ...]       what a second process brings; parallel --help

Times the whole update (gradients and optimizer) of every rule beside backprop's on the same net, taking turns in one
process: medians with their quartiles, the ratio to backprop of the same turn, the share of the arithmetic's limit (the
step's matrix products at the device's measured matrix rate), the memory that a step's tensors take and, where the
machine measures them (NVML, RAPL), joules. Writes
OUT/bench.json, OUT/bench.md and OUT/plot.png. Rows are made up; nothing is learned from them.

  rules=[A,B]        backprop and others; all rules where none are given
  width=2000 depth=3 batch=512
                     an MLP of so many blocks, and rows a step
  widths=[500,1000]  as well at these, the others as they are; so too depths=[2,8] and batches=[64,2048]
  input=[3072]       a row's shape
  vocabulary=65      rows are so many tokens' ids, of which the net is to predict those that follow: net=transformer
                     input=[128] batch=8
  categories=[943,1682]
                     a row's first columns are codes of so many categories: net=deepfm input=[2]
  net=cnn            another net, with input=[3,32,32]; its options by net.KEY=VALUE; batches alone are varied then
  turns=7            for which each median is taken
  turn_s=1.0         seconds a turn for each rule, a step at least
  device=auto        precision=fp32, or bf16
  step=all           or block: each gradient is stepped and dropped as soon as it is there
  capture=off        or graph, compile, auto: the whole update of every rule alike
  memory_format=auto or channels_last, contiguous: how a convolutional net lies in memory
  --quick            in a minute or two: width=1000 batch=256 turns=3 turn_s=0.2, and depths=[1,8]
  key=value          any key of localearn.run's algo, net and optim, for all rules; ALGO:key=value for one alone
"""

OWN = ("rules", "width", "depth", "batch", "widths", "depths", "batches", "input", "turns", "turn_s", "device", "out",
       "precision", "net", "step", "capture", "memory_format", "vocabulary", "categories",
       "debug")  # fmt: skip
DEFAULTS = {"width": "2000", "depth": "3", "batch": "512", "turns": "7", "turn_s": "1.0", "input": "[3072]"}
QUICK = {"width": "1000", "batch": "256", "turns": "3", "turn_s": "0.2", "depths": "[1,8]"}
AXES = {"widths": "width", "depths": "depth", "batches": "batch"}


def main(arguments: list[str], energy_of: "Callable[[torch.device], Counter | None] | None" = None) -> int:
    """Bench and write; return the exit status.

    energy_of: returns an opened counter of a device's energy, None where there is none; the hardware's own by default.
    """
    if arguments[:1] == ["parallel"]:
        from localearn.cli import bench_parallel

        return bench_parallel.main(arguments[1:])
    if arguments[:1] == ["rank"]:  # one of those that `parallel` starts
        from localearn.benching import rank

        return rank.main(arguments[1:])
    if {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0
    from localearn.benching.measure import measured_energy
    from localearn.benching.page import writable, write
    from localearn.training.memory import full_memory_told

    plan = parse(arguments)
    command = "python -m localearn.bench " + " ".join(arguments)
    benches, left_out = [], {}
    writable(plan.out)
    for axis, size in plan.sizes:
        say(f"{axis}: {_said(size)}")
        with full_memory_told(_said(size), "smaller sizes"):
            found, refused = _bench(plan, size, energy_of or measured_energy)
        left_out |= refused
        benches.append((axis, size, found))
        for measured in found.rules:
            say(f"  {measured.algo:<28}{1e3 * measured.step_s.median:10.2f} ms  ×{measured.ratio.median:.3f}")
        # After every size: a later one may be more than memory holds, and what was measured stays.
        page = write(plan.out, benches, left_out, command)
    for rule, reason in left_out.items():
        say(f"left out: {rule} ({reason})")
    say(page)
    return 0


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


def _bench(
    plan: Plan, size: Size, energy_of: "Callable[[torch.device], Counter | None]"
) -> tuple["Bench", dict[str, str]]:
    """Return what was measured at a size, and the rules that do not serve the net, with the reason."""
    from omegaconf import OmegaConf

    from localearn.benching.measure import bench
    from localearn.benching.workload import Point, Workload
    from localearn.training.device import select_device

    name = plan.net if size.depth is None else f"{plan.net}_{size.depth}x{size.width}"
    device = select_device(plan.device)
    point = Point(
        name,
        plan.input_shape,
        size.batch,
        plan.precision,
        device,
        plan.step,
        plan.capture,
        plan.memory_format,
        plan.vocabulary,
        plan.categories,
    )
    workloads, refused = [], {}
    for rule in plan.rules:
        config: Any = OmegaConf.to_container(compose(plan.for_rule(rule, size))[0], resolve=True)
        try:
            workloads.append(Workload(rule, config, point))
        except Unsupported as error:
            if rule == "backprop":  # beside which the others stand
                raise
            refused[rule] = str(error)
    counter = energy_of(point.device)
    try:
        return bench(workloads, "backprop", plan.turns, plan.turn_s, counter), refused
    finally:
        if counter:
            counter.close()


def _said(size: Size) -> str:
    return ", ".join(f"{name} {value}" for name, value in vars(size).items() if value is not None)
