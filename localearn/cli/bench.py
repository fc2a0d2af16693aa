"""`python -m localearn.bench`: measure every rule's step next to backprop's, on one net, in one process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from localearn.benching.plan import Plan, known_rules
from localearn.benching.workload import Size
from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Range, RunningOptions, option, read, refuse_other_rules, run_keys
from localearn.cli.pages import help_status
from localearn.composition import compose
from localearn.defaults import net_options
from localearn.errors import Unsupported, UserError, suggestion
from localearn.printing import say

if TYPE_CHECKING:
    import torch

    from localearn.benching.measure import Bench
    from localearn.energy import Counter

WIDTH, DEPTH = 2000, 3
QUICK = {"width": 1000, "batch": 256, "turns": 3, "turn_s": 0.2, "depths": (1, 8)}
AXES = {"widths": "width", "depths": "depth", "batches": "batch"}


@dataclass(frozen=True)
class BenchOptions(RunningOptions):
    """The options of a bench."""

    rules: Sequence[str] | None = option(None, "backprop and others; all rules where none are given", value="[A,B]")
    width: int | None = option(None, "of an MLP's blocks", value=str(WIDTH))
    depth: int | None = option(None, "of an MLP: its blocks", value=str(DEPTH))
    batch: int = option(512, "rows a step")
    widths: Sequence[int] | None = option(None, "as well at these, the others as they are", value="[500,1000]")
    depths: Sequence[int] | None = option(None, "likewise", value="[2,8]")
    batches: Sequence[int] | None = option(None, "likewise", value="[64,2048]")
    input: tuple[int, ...] | None = option(None, "a row's shape", value="[3072]")
    vocabulary: int | None = option(
        None,
        "rows are so many tokens' ids, of which the net is to predict those that follow: net=transformer input=[128] "
        "batch=8",
        value="65",
    )
    categories: tuple[int, ...] = option(
        (),
        "a row's first columns are codes of so many categories: net=deepfm input=[2]",
        value="[943,1682]",
    )
    net: str = option(
        "mlp",
        "or another net: net=cnn input=[3,32,32]; its options by net.KEY=VALUE; batches alone are varied then",
    )
    turns: int = option(7, "for which each median is taken")
    turn_s: float = option(
        1.0, "seconds a turn for each rule, a step at least", range=Range(above=0, below=3600, unit="seconds")
    )
    device: str = option("auto", "where the steps are taken")
    precision: Literal["fp32", "bf16"] = option("fp32")
    step: Literal["all", "block"] = option("all", "each gradient is stepped and dropped as soon as it is there")
    capture: Literal["off", "auto", "graph", "compile"] = option("off", "the whole update of every rule alike")
    memory_format: Literal["auto", "channels_last", "contiguous"] = option(
        "auto", "how a convolutional net lies in memory"
    )
    out: Path = option(Path("results/bench"), "where to write", folder=True)
    quick: bool = option(
        False, "in a minute or two: width=1000 batch=256 turns=3 turn_s=0.2, and depths=[1,8]", flag=("--quick",)
    )
    overrides: list[str] = run_keys(
        "any key of localearn.run's algo, net and optim, for all rules; ALGO:key=value for one alone: "
        "model_free:net=physical has a rule on a net of its own, of the same widths, beside backprop's MLP"
    )


COMMAND = Command(
    "bench",
    SUMMARIES["bench"],
    BenchOptions,
    """\
Times the whole update (gradients and optimizer) of every rule beside backprop's on the same net, taking turns in one
process: medians with their quartiles, the ratio to backprop of the same turn, the share of the arithmetic's limit (the
step's matrix products at the device's measured matrix rate), the memory that a step's tensors take and, where the
machine measures them (NVML, RAPL), joules. Writes OUT/bench.json, OUT/bench.md and OUT/plot.png. Rows are made up;
nothing is learned from them.
""",
    bare=True,
    usage="""\
localearn bench [rules=[A,B]] [width=2000 depth=3 batch=512] [out=results/bench] [--quick] [key=value ...]
localearn bench parallel [key=value ...]       what a second process brings; parallel --help""",
)


def main(arguments: list[str], energy_of: "Callable[[torch.device], Counter | None] | None" = None) -> int:
    """Measure and write the bench; return the exit status.

    Args:
        arguments: Those of the command line.
        energy_of: Returns an open energy counter of a device, None where there is none; by default the hardware's.

    """
    if arguments[:1] == ["parallel"]:
        from localearn.cli import bench_parallel

        return bench_parallel.main(arguments[1:])
    if arguments[:1] == ["rank"]:  # a rank that `parallel` starts
        from localearn.benching.rank import run_rank

        return run_rank(arguments[1:])
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    from localearn.benching.measure import measured_energy
    from localearn.benching.page import writable, write
    from localearn.training.memory import out_of_memory_error

    plan = parse(arguments)
    command = "python -m localearn.bench " + " ".join(arguments)
    benches, left_out = [], {}
    writable(plan.out)
    for axis, size in plan.sizes:
        say(f"{axis}: {_size_text(size)}")
        with out_of_memory_error(_size_text(size), "smaller sizes"):
            found, refused = _bench(plan, size, energy_of or measured_energy)
        left_out |= refused
        benches.append((axis, size, found))
        for measured in found.rules:
            say(f"  {measured.algo:<28}{1e3 * measured.step_s.median:10.2f} ms  ×{measured.ratio.median:.3f}")
        # After every size: a later one may not fit into memory, and what was measured is saved.
        page = write(plan.out, benches, left_out, command)
    for rule, reason in left_out.items():
        say(f"left out: {rule} ({reason})")
    say(page)
    return 0


def parse(arguments: Sequence[str]) -> Plan:
    """Read the command line.

    Raises:
        UserError: For what is unknown, out of range or does not go together.

    """
    options = read(BenchOptions, arguments)
    mlp = options.net == "mlp"
    if not mlp:
        wrong = next((name for name in ("width", "depth", "widths", "depths") if getattr(options, name)), None)
        if wrong:
            raise UserError(f"{wrong}= is the MLP's; give net={options.net}'s sizes by net.KEY=VALUE")
        if options.input is None:
            if options.config_dir is None:
                net_options(options.net)  # which reports a name that is not there
            raise UserError(f"net={options.net} needs its rows' shape, say input=[3,32,32]")
    if options.quick:
        given = {word.partition("=")[0] for word in arguments}
        named = {name: value for name, value in QUICK.items() if name not in given}
        options = replace(options, **{name: value for name, value in named.items() if mlp or name != "depths"})
    base = Size(options.width or WIDTH, options.depth or DEPTH, options.batch)
    base = base if mlp else Size(None, None, options.batch)
    sizes = [("base", base)]
    for axis, name in AXES.items():
        for value in getattr(options, axis) or ():
            size = replace(base, **{name: value})
            sizes += [(name, size)] if size != base else []
    rules = known_rules() if options.rules is None else list(options.rules)
    for rule in rules:
        if rule not in known_rules():
            raise UserError(f"no rule {rule!r}{suggestion(rule, known_rules())}; there are {', '.join(known_rules())}")
    named_rules = "the rules" if options.rules is None else f"rules=[{','.join(rules)}]"
    if "backprop" not in rules:
        rules = ["backprop", *rules]
    refuse_other_rules(options.overrides, rules, named_rules)
    shape = options.input or (3072,)
    _check_rows(options, shape)
    return Plan(
        rules=rules,
        sizes=sizes,
        net=options.net,
        input_shape=shape,
        turns=options.turns,
        turn_s=options.turn_s,
        device=options.device,
        precision=options.precision,
        step=options.step,
        capture=options.capture,
        memory_format=options.memory_format,
        out=options.out,
        overrides=options.overrides,
        vocabulary=options.vocabulary,
        categories=options.categories,
        config_dir=options.config_dir,
    )


def _check_rows(options: BenchOptions, shape: tuple[int, ...]) -> None:
    """Raise UserError where rows of that shape cannot be token ids or category codes."""
    given = f"input=[{','.join(map(str, shape))}]"
    if options.vocabulary is not None and len(shape) > 1:
        raise UserError(f"vocabulary= is of rows of so many tokens, and {given} has more sides; use input=[T]")
    if not options.categories:
        return
    if options.vocabulary is not None:
        raise UserError("vocabulary= is of tokens, categories= of a table's columns; give one of them")
    if len(shape) > 1 or len(options.categories) > max(shape):
        raise UserError(f"categories= are of the first columns of a row, and {given} has fewer of them")


def _bench(
    plan: Plan, size: Size, energy_of: "Callable[[torch.device], Counter | None]"
) -> tuple["Bench", dict[str, str]]:
    """Return the measurements at a size, and the rules that do not support the net, with the reason."""
    from omegaconf import OmegaConf

    from localearn.benching.measure import bench
    from localearn.benching.workload import Point, Workload
    from localearn.training.runtime import select_device

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
        config: Any = OmegaConf.to_container(compose(plan.for_rule(rule, size), plan.config_dir)[0], resolve=True)
        try:
            workloads.append(Workload(rule, config, point))
        except Unsupported as error:
            if rule == "backprop":  # the reference of the others
                raise
            refused[rule] = str(error)
    counter = energy_of(point.device)
    try:
        return bench(workloads, "backprop", plan.turns, plan.turn_s, counter), refused
    finally:
        if counter:
            counter.close()


def _size_text(size: Size) -> str:
    return ", ".join(f"{name} {value}" for name, value in vars(size).items() if value is not None)
