"""Bench of two processes that train together: how much more work they do than one.

Each is `python -m localearn.bench rank PLAN.json`, see `localearn.benching.rank`.
"""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localearn.benching.measure import Spread
from localearn.errors import UserError
from localearn.moved import Renamed, former_names

RANKS = 2
_RECORDED = {"contention": "beside"}  # fields whose name in parallel.json is another


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
        contention: how much longer a rank's updates take while the machine's other ranks are busy too, which share its
            memory bandwidth; a factor.
        in_step: the same, where each step waits for the slowest of them.

    """

    step_s: float
    block_s: tuple[float, ...]
    message_s: float
    latency_s: float
    reduce_s: float
    reduce_latency_s: float
    contention: float = 1.0
    in_step: float = 1.0

    beside = Renamed("contention")

    def as_record(self) -> dict[str, Any]:
        """Return the costs as parallel.json has them; `contention` is named `beside` there."""
        return {_RECORDED.get(name, name): value for name, value in vars(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Costs":
        """Return the costs that a parallel.json has.

        Args:
            record: its `costs`.

        """
        values: dict[str, Any] = {field.name: record[_RECORDED.get(field.name, field.name)] for field in fields(cls)}
        values["block_s"] = tuple(values["block_s"])
        return cls(**values)


@dataclass(frozen=True)
class ParallelBench:
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


def run_ranks(own: dict[str, str], overrides: list[str]) -> dict[str, Any]:
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
            raise UserError(f"ranks {failed} failed; their error messages are above")
        return json.loads((Path(folder) / "measurements.json").read_text())


def _free_port() -> int:
    """Return a port below those that systems hand out: a rank that asks for one of these too early may get itself."""
    for port in random.Random().sample(range(20_000, 32_000), 100):
        with socket.socket() as taken, contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise UserError("no port is free between 20000 and 32000 for the ranks to meet at")


def read(measurements: dict[str, Any], batches: int) -> ParallelBench:
    """Return the ratios within each turn, and the time of each part.

    Args:
        measurements: what `run_ranks` returned.
        batches: a rank's in a turn.

    """
    times, costs = measurements["times"], measurements["costs"]
    pairs = list(zip(times["alone"], times["data"], times["layers"], strict=True))
    return ParallelBench(
        data=Spread.of([RANKS * alone / data for alone, data, _ in pairs]),
        layers=Spread.of([alone / layers for alone, _, layers in pairs]),
        alone_s=Spread.of([alone / batches for alone, _, _ in pairs]),
        costs=Costs(
            costs["step_s"],
            tuple(costs["block_s"]),
            *(costs[name] for name in ("message_s", "latency_s", "reduce_s", "reduce_latency_s")),
            contention=costs["contended_s"] / costs["step_s"],
            in_step=costs["in_step_s"] / costs["step_s"],
        ),
        message_bytes=costs["message_bytes"],
        gradient_bytes=costs["gradient_bytes"],
    )


def page_and_record(own: dict[str, str], bench: ParallelBench, command: str) -> tuple[str, dict[str, Any]]:
    """Return parallel.md and the content of parallel.json.

    Args:
        own: the command's own options.
        bench: what was measured.
        command: the command that repeats it.

    """
    import torch

    from localearn.training.runtime import describe_device

    batches, costs = int(own["batches"]), bench.costs
    ways = {"data": bench.data, "layers": bench.layers}
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
        f"One process takes {_three(bench.alone_s)} s for a batch. Measured by itself: blocks "
        f"{', '.join(f'{1e3 * value:.0f}' for value in costs.block_s)} ms; a message of "
        f"{bench.message_bytes / 2**20:.1f} MiB {1e3 * costs.message_s:.1f} ms, an empty one "
        f"{1e3 * costs.latency_s:.2f} ms; an all-reduce of {bench.gradient_bytes / 2**20:.0f} MiB "
        f"{1e3 * costs.reduce_s:.0f} ms, an empty one {1e3 * costs.reduce_latency_s:.2f} ms; "
        f"beside a busy neighbour a process takes ×{costs.contention:.2f} as long, ×{costs.in_step:.2f} where each "
        "step waits for the slower one.",
    ]
    record = {
        "schema": 1,
        "command": command,
        "machine": machine,
        "options": own,
        "measured": {mode: vars(spread) for mode, spread in ways.items()} | {"alone_s": vars(bench.alone_s)},
        "costs": costs.as_record() | {"message_bytes": bench.message_bytes, "gradient_bytes": bench.gradient_bytes},
    }
    return "\n".join(lines) + "\n", record


def _three(spread: Spread) -> str:
    return f"{spread.median:.2f} [{spread.low:.2f}, {spread.high:.2f}]"


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
