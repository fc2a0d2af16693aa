"""Measure the work that a second process brings, and simulate that of more of them."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localearn.benching.measure import Spread
from localearn.benching.simulation import Costs, data_s, layers_s
from localearn.errors import UserError

PLANNED = (1, 2, 8, 64, 512)
RANKS = 2


@dataclass(frozen=True)
class Found:
    """What was measured, turn by turn: how much more a second's work is on two ranks than on one."""

    data: Spread
    layers: Spread
    alone_s: Spread
    costs: Costs
    message_bytes: int
    gradient_bytes: int


def measured(own: dict[str, str], overrides: list[str]) -> dict[str, Any]:
    """Start the ranks, each on a core of its own, and return what they found."""
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
    """Return the ratios within each turn, and the costs of a simulation."""
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


def simulated(costs: Costs, ranks: int, batches: int, here: bool = False) -> dict[str, float]:
    """Return how much more work a second is done on so many ranks than on one.

    data: the measured net, a batch for each rank. layers: so deep a net that each rank has as many of its blocks as
    each of the two measured ones, against one rank that trains all of them. here: the two ranks of this machine, which
    slow each other down; else each has a machine's memory to itself.
    """
    from localearn.training.parallel.layers import AHEAD

    alone = batches * costs.step_s
    if ranks == 1:
        return {"data": 1.0, "layers": 1.0}
    half = len(costs.block_s) // RANKS
    shares = [half * costs.step_s / len(costs.block_s)] * ranks
    if here:
        shares = [sum(costs.block_s[:half]), sum(costs.block_s[half:])]
    slow, in_step = (costs.beside, costs.in_step) if here else (1.0, 1.0)
    seconds = layers_s([slow * s for s in shares], slow * costs.block_s[-1], costs.message_s, batches, AHEAD)
    reducing_s = data_s(costs, ranks, batches) - alone
    return {"data": ranks * alone / (in_step * alone + reducing_s), "layers": batches * sum(shares) / seconds}


def page_and_record(own: dict[str, str], found: Found, command: str) -> tuple[str, dict[str, Any]]:
    """Return parallel.md and what parallel.json holds."""
    import torch

    from localearn.training.device import describe_device

    batches, epoch, costs = int(own["batches"]), int(own["epoch"]), found.costs
    told = simulated(costs, RANKS, batches, here=True)
    ways = {"data": found.data, "layers": found.layers}
    plan = {ranks: simulated(costs, ranks, epoch) for ranks in PLANNED}
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
        "| parallel | work a second, of one process's, median [quartiles] | simulated | simulation's error |",
        "| --- | --- | --- | --- |",
        *(
            f"| {mode} | ×{_three(spread)} | ×{told[mode]:.2f} | {100 * (told[mode] / spread.median - 1):+.1f} % |"
            for mode, spread in ways.items()
        ),
        "",
        f"One process takes {_three(found.alone_s)} s for a batch. Measured for the simulation: blocks "
        f"{', '.join(f'{1e3 * value:.0f}' for value in costs.block_s)} ms; a message of "
        f"{found.message_bytes / 2**20:.1f} MiB {1e3 * costs.message_s:.1f} ms, an empty one "
        f"{1e3 * costs.latency_s:.2f} ms; an all-reduce of {found.gradient_bytes / 2**20:.0f} MiB "
        f"{1e3 * costs.reduce_s:.0f} ms, an empty one {1e3 * costs.reduce_latency_s:.2f} ms; "
        f"beside a busy neighbour a process takes ×{costs.beside:.2f} as long, ×{costs.in_step:.2f} where each step "
        "waits for the slower one.",
        "",
        f"## Simulated: work a second, of one process's, in epochs of {epoch} batches",
        "",
        f"| parallel | {' | '.join(f'{ranks} ranks' for ranks in PLANNED)} |",
        "| --- |" + " --- |" * len(PLANNED),
        *(
            f"| {mode} | "
            + " | ".join(f"×{plan[n][mode]:.2f} ({100 * plan[n][mode] / n:.0f} % each)" for n in PLANNED)
            + " |"
            for mode in ways
        ),
        "",
        "Nothing of more than 2 ranks was measured. data: this net, a batch for each rank, the gradients' all-reduce "
        "around a ring. layers: a net of as many blocks for each rank as here, all of the mean block's cost; an epoch "
        "begins and ends with ranks that wait. Every link is taken to be as this machine's, between two processes, and "
        "every rank to have a machine of its own, whose memory no other rank slows down.",
    ]
    record = {
        "schema": 1,
        "command": command,
        "machine": machine,
        "options": own,
        "measured": {mode: vars(spread) for mode, spread in ways.items()} | {"alone_s": vars(found.alone_s)},
        "costs": vars(costs) | {"message_bytes": found.message_bytes, "gradient_bytes": found.gradient_bytes},
        "simulated": {"measured_ranks": told, "plan": plan},
    }
    return "\n".join(lines) + "\n", record


def _three(spread: Spread) -> str:
    return f"{spread.median:.2f} [{spread.low:.2f}, {spread.high:.2f}]"
