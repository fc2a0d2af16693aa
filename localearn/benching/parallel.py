"""Measurement of the work that a second process adds, and of the time that each part of a rank's work takes.

A rank of it is `python -m localearn.bench rank PLAN.json`.
"""

import contextlib
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from localearn.benching.measure import Spread
from localearn.benching.workload import Point, as_data, built, made_up
from localearn.composition import compose
from localearn.data import Batch
from localearn.errors import UserError
from localearn.trainers.base import Pipelined
from localearn.trainers.phases import Descent, Metrics, Phase
from localearn.training.building import optimizer_factory
from localearn.training.distributed import Ranks, join_process_group
from localearn.training.runtime import autocast, synchronize
from localearn.training.settings import Settings
from localearn.training.step import Update

RANKS = 2
WARM_UP = 2
PINGS = 5


@dataclass(frozen=True)
class Costs:
    """The times of a rank's parts, measured on this machine, in seconds.

    Attributes:
        step_s: the update of a batch on one rank.
        block_s: each block's.
        message_s: of a batch's activations from one rank to the next.
        latency_s: of an empty message.
        reduce_s: of all gradients' all-reduce over two ranks.
        reduce_latency_s: of an empty one.
        beside: how much longer a rank takes over its updates while its machine's other ranks are busy too, for they
            share its memory; a factor.
        in_step: the same, where each step waits for the slowest of them.

    """

    step_s: float
    block_s: tuple[float, ...]
    message_s: float
    latency_s: float
    reduce_s: float
    reduce_latency_s: float
    beside: float = 1.0
    in_step: float = 1.0


@dataclass(frozen=True)
class Found:
    """The measurements, turn by turn: how much more a second's work is on two ranks than on one.

    Attributes:
        data: by parallel=data.
        layers: by parallel=layers.
        alone_s: seconds on one rank.
        costs: each part's time.
        message_bytes: of a batch's activations.
        gradient_bytes: of all gradients.

    """

    data: Spread
    layers: Spread
    alone_s: Spread
    costs: Costs
    message_bytes: int
    gradient_bytes: int


def measured(own: dict[str, str], overrides: list[str]) -> dict[str, Any]:
    """Start the ranks, each on a core of its own, and return their measurements.

    Args:
        own: the command's own options.
        overrides: the run's.

    Raises:
        UserError: when there are fewer cores than ranks, or a rank fails.

    """
    width, depth = own["width"], int(own["depth"])
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if own["device"] == "cpu" and cores and len(cores) < RANKS:
        raise UserError(f"{RANKS} processes need a core each, and this machine lends {len(cores)}")
    plan = {
        "overrides": [f"algo={own['rule']}", "net=mlp", f"net.widths=[{','.join([width] * depth)}]", *overrides],
        "net": f"mlp_{depth}x{width}",
        "input": [int(width)],
        "cores": cores[:RANKS] if own["device"] == "cpu" else [],
        **{name: int(own[name]) for name in ("batch", "batches", "turns")},
        **{name: own[name] for name in ("device", "precision")},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_text(json.dumps(plan))
        place = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        place |= {"OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "localearn.bench", "rank", str(path)],
                env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(RANKS)
        ]
        try:
            failed = [rank for rank, process in enumerate(processes) if process.wait()]
        finally:
            for process in processes:
                process.kill()
        if failed:
            raise UserError(f"ranks {failed} failed; what they said stands above")
        return json.loads((Path(folder) / "found.json").read_text())


def _free_port() -> int:
    """Return a port below those that systems hand out: a rank that asks for one of these too early may get itself."""
    for port in random.Random().sample(range(20_000, 32_000), 100):
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise UserError("no port is free between 20000 and 32000 for the ranks to meet at")


def read(found: dict[str, Any], batches: int) -> Found:
    """Return the ratios within each turn, and the time of each part.

    Args:
        found: what `measured` returned.
        batches: a rank's in a turn.

    """
    times, costs = found["times"], found["costs"]
    pairs = list(zip(times["alone"], times["data"], times["layers"], strict=True))
    return Found(
        data=Spread.of([RANKS * alone / data for alone, data, _ in pairs]),
        layers=Spread.of([alone / layers for alone, _, layers in pairs]),
        alone_s=Spread.of([alone / batches for alone, _, _ in pairs]),
        costs=Costs(
            costs["step_s"],
            tuple(costs["block_s"]),
            *(costs[name] for name in ("message_s", "latency_s", "reduce_s", "reduce_latency_s")),
            beside=costs["beside_s"] / costs["step_s"],
            in_step=costs["in_step_s"] / costs["step_s"],
        ),
        message_bytes=costs["message_bytes"],
        gradient_bytes=costs["gradient_bytes"],
    )


def page_and_record(own: dict[str, str], found: Found, command: str) -> tuple[str, dict[str, Any]]:
    """Return parallel.md and the content of parallel.json.

    Args:
        own: the command's own options.
        found: what was measured.
        command: the command that repeats it.

    """
    import torch

    from localearn.training.runtime import describe_device

    batches, costs = int(own["batches"]), found.costs
    ways = {"data": found.data, "layers": found.layers}
    machine = {**describe_device(torch.device("cpu")), "torch": torch.__version__}
    size = f"MLP {own['depth']}x{own['width']} with {own['width']} inputs, batch {own['batch']}, {own['precision']}"
    lines = [
        f"# {own['rule']}: {size}, on two processes",
        "",
        f"    {command}",
        "",
        f"{machine['name']}, a core and a thread for each process, gloo, torch {machine['torch']}; {own['turns']} "
        f"turns of {batches} batches.",
        "",
        "| parallel | work a second, of one process's, median [quartiles] |",
        "| --- | --- |",
        *(f"| {mode} | ×{_three(spread)} |" for mode, spread in ways.items()),
        "",
        f"One process takes {_three(found.alone_s)} s for a batch. Measured by itself: blocks "
        f"{', '.join(f'{1e3 * value:.0f}' for value in costs.block_s)} ms; a message of "
        f"{found.message_bytes / 2**20:.1f} MiB {1e3 * costs.message_s:.1f} ms, an empty one "
        f"{1e3 * costs.latency_s:.2f} ms; an all-reduce of {found.gradient_bytes / 2**20:.0f} MiB "
        f"{1e3 * costs.reduce_s:.0f} ms, an empty one {1e3 * costs.reduce_latency_s:.2f} ms; "
        f"beside a busy neighbour a process takes ×{costs.beside:.2f} as long, ×{costs.in_step:.2f} where each step "
        "waits for the slower one.",
    ]
    record = {
        "schema": 1,
        "command": command,
        "machine": machine,
        "options": own,
        "measured": {mode: vars(spread) for mode, spread in ways.items()} | {"alone_s": vars(found.alone_s)},
        "costs": vars(costs) | {"message_bytes": found.message_bytes, "gradient_bytes": found.gradient_bytes},
    }
    return "\n".join(lines) + "\n", record


def _three(spread: Spread) -> str:
    return f"{spread.median:.2f} [{spread.low:.2f}, {spread.high:.2f}]"


def run_rank(arguments: list[str]) -> int:
    """Measure with the other ranks; rank 0 writes what was found next to the plan.

    Args:
        arguments: the command line's.

    """
    from omegaconf import OmegaConf

    (path,) = arguments
    plan = json.loads(Path(path).read_text())
    rank = int(os.environ["RANK"])
    if plan["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {plan["cores"][rank]})
    torch.set_num_threads(1)
    config: Any = OmegaConf.to_container(compose(plan["overrides"])[0], resolve=True)
    data, layers = (Settings(parallel=mode, device=plan["device"]) for mode in ("data", "layers"))
    with join_process_group(data, {}) as (sharing, device), join_process_group(layers, {}) as (piping, _):
        point = Point(plan["net"], tuple(plan["input"]), plan["batch"], plan["precision"], device)
        found = measure(plan, config, point, {"data": sharing, "layers": piping})
    if rank == 0:
        Path(path).with_name("found.json").write_text(json.dumps(found))
    return 0


def measure(plan: dict[str, Any], config: Any, point: Point, ranks: dict[str, Ranks]) -> dict[str, Any]:
    """Return each way's seconds for the same number of batches a rank, turn by turn, and the time of each part.

    Args:
        plan: the measurement's.
        config: a run's configuration.
        point: what is measured.
        ranks: how each way shares the work.

    """
    batches = made_up(point)
    ways = {"alone": Way(config, point, Ranks()), **{mode: Way(config, point, r) for mode, r in ranks.items()}}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(plan["turns"] + 1):
        for name, way in ways.items():
            given = list(itertools.islice(itertools.cycle(batches), plan["batches"] if turn else WARM_UP))
            dist.barrier()
            begin_s = time.perf_counter()
            if way.works():
                way.run(given)
            synchronize(point.device)
            dist.barrier()  # the turn is over when the last rank is through
            if turn:
                times[name].append(time.perf_counter() - begin_s)
    return {"times": times, "costs": costs(plan, config, point, batches, ranks["data"])}


class Way:
    """A rule on its net with its optimizer, and how ranks share its work.

    Args:
        config: a run's configuration.
        point: what is measured.
        ranks: how they share the work.
        block: a block's number and its input, where that block alone shall learn.

    """

    def __init__(self, config: Any, point: Point, ranks: Ranks, block: tuple[int, Tensor] | None = None):
        self.ranks = ranks
        data = as_data(made_up(point), point)
        self.trainer = built("", config, data).to(point.device).train()
        ranks.setup(self.trainer, data)
        whole = self.trainer.phases()[0]
        phase = ranks.setup_phase(whole) if block is None else _of_block(self.trainer.pipelined(), *block, whole)
        assert isinstance(phase, Descent)
        optimizer = optimizer_factory(config["optim"])(phase.optimizer_groups())
        autocasting = autocast(point.device, point.precision)
        self.update = Update(self.trainer, phase, optimizer, Settings(), autocasting, ranks)

    def works(self) -> bool:
        """Return whether this rank has something to do: alone only the first one has."""
        return self.ranks.size > 1 or dist.get_rank() == 0

    def run(self, batches: list[Batch]) -> None:
        """Train on the batches.

        Args:
            batches: of the point's size.

        """
        for batch in self.ranks.inputs(iter(batches)):
            self.update(batch)


def costs(plan: dict[str, Any], config: Any, point: Point, batches: list[Batch], sharing: Ranks) -> dict[str, Any]:
    """Return the fields of `Costs`: the times of rank 0 alone, and of the messages between the two.

    Args:
        plan: the measurement's.
        config: a run's configuration.
        point: what is measured.
        batches: of the point's size.
        sharing: the two ranks.

    """
    way = Way(config, point, Ranks())
    block_s, inputs = [], inputs_of_blocks(way, batches[0])
    for k, h in enumerate(inputs):
        given = batches[:1] * max(2, plan["batches"] // 2)
        of_block = Way(config, point, Ranks(), (k, h))
        block_s.append(_alone(lambda of_block=of_block, given=given: of_block.run(given), point.device) / len(given))
    given = batches[:1] * max(2, plan["batches"] // 4)
    by_itself_s = _alone(lambda: way.run(given), point.device) / len(given)
    parameters, h, one = way.update.parameters, inputs[1], torch.zeros(1, device=point.device)
    for p in parameters:
        p.grad = torch.randn_like(p)  # pages of zeros would be read from nowhere
    return {
        "block_s": block_s,
        "step_s": by_itself_s,
        "beside_s": _median(lambda: way.run(given), point.device) / len(given),
        "in_step_s": _median(lambda: _in_step(way, batches[0]), point.device),
        "message_s": _median(lambda: _message(h), point.device),
        "latency_s": _median(lambda: _message(h[:1, :1].contiguous()), point.device),
        "reduce_s": _median(lambda: sharing.reduce_gradients(parameters, point.batch), point.device),
        "reduce_latency_s": _median(lambda: dist.all_reduce(one), point.device),
        "message_bytes": h.nbytes,
        "gradient_bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def inputs_of_blocks(way: Way, batch: Batch) -> list[Tensor]:
    """Return the input of each block where blocks learn apart: h_0, then the output of the block before.

    Args:
        way: the rule at work.
        batch: the batch.

    """
    rule = way.trainer.pipelined()
    inputs = [rule.first_input(batch)[0]]
    for k in range(way.trainer.net.depth - 1):
        inputs.append(rule.learn_block(k, inputs[k], batch)[0])
    return inputs


def _of_block(rule: Pipelined, k: int, h: Tensor, whole: Phase) -> Descent:
    """Return the phase in which block k alone learns, from the same input h_k each time."""

    def gradients(batch: Batch) -> Metrics:
        given = rule.first_input(batch)[0] if k == 0 else h
        return rule.learn_block(k, given, batch)[1]

    return Descent(whole.name, whole.parameters, gradients, predict=whole.predict)


def _in_step(way: Way, batch: Batch) -> None:
    """Take a step, and wait for whoever takes the longest over it."""
    way.run([batch])
    dist.barrier()


def _message(h: torch.Tensor) -> None:
    if dist.get_rank() == 0:
        dist.send(h, 1)
    elif dist.get_rank() == 1:
        dist.recv(torch.empty_like(h), 0)


def _alone(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that rank 0 takes while the others wait, once it is warm."""
    seconds = 0.0
    for _ in range(2):
        dist.barrier()
        seconds = _timed(work, device) if dist.get_rank() == 0 else 0.0
        dist.barrier()
    return seconds


def _median(work: Callable[[], Any], device: torch.device) -> float:
    found = []
    for _ in _repeats():
        dist.barrier()
        found.append(_timed(work, device))
    return sorted(found[1:])[PINGS // 2]


def _repeats() -> Iterator[int]:
    return iter(range(PINGS + 1))


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    synchronize(device)
    begin_s = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begin_s
