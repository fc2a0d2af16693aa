"""One rank of the parallel bench: how long a second process's work takes, and each part of a rank's own.

It is started by `localearn.benching.parallel` as `python -m localearn.bench rank PLAN.json`.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from localearn.benching.workload import Point, as_data, build_rule_on_data, random_batches
from localearn.composition import compose
from localearn.data import Batch
from localearn.trainers.base import Pipelined
from localearn.trainers.phases import Descent, Metrics, Phase
from localearn.training.building import optimizer_factory
from localearn.training.distributed import Ranks, join_process_group
from localearn.training.runtime import autocast, synchronize
from localearn.training.settings import Settings
from localearn.training.step import Update

WARM_UP = 2
PINGS = 5


def run_rank(arguments: list[str]) -> int:
    """Measure with the other ranks; rank 0 writes measurements.json next to the plan.

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
        measurements = measure(plan, config, point, {"data": sharing, "layers": piping})
    if rank == 0:
        Path(path).with_name("measurements.json").write_text(json.dumps(measurements))
    return 0


def measure(plan: dict[str, Any], config: Any, point: Point, ranks: dict[str, Ranks]) -> dict[str, Any]:
    """Return each way's seconds for the same number of batches a rank, turn by turn, and the time of each part.

    Args:
        plan: the measurement's.
        config: a run's configuration.
        point: what is measured.
        ranks: how each way shares the work.

    """
    batches = random_batches(point)
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
        data = as_data(random_batches(point), point)
        self.trainer = build_rule_on_data("", config, data).to(point.device).train()
        ranks.setup(self.trainer, data)
        full = self.trainer.phases()[0]
        phase = ranks.setup_phase(full) if block is None else _of_block(self.trainer.pipelined(), *block, full)
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
        "contended_s": _median(lambda: way.run(given), point.device) / len(given),
        "in_step_s": _median(lambda: _in_step(way, batches[0]), point.device),
        "message_s": _median(lambda: _message(h), point.device),
        "latency_s": _median(lambda: _message(h[:1, :1].contiguous()), point.device),
        "reduce_s": _median(lambda: sharing.reduce_gradients(parameters, point.batch), point.device),
        "reduce_latency_s": _median(lambda: dist.all_reduce(one), point.device),
        "message_bytes": h.nbytes,
        "gradient_bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def inputs_of_blocks(way: Way, batch: Batch) -> list[Tensor]:
    """Return the input of each block where blocks learn separately: h_0, then the output of the block before.

    Args:
        way: the rule at work.
        batch: the batch.

    """
    rule = way.trainer.pipelined()
    inputs = [rule.first_input(batch)[0]]
    for k in range(way.trainer.net.depth - 1):
        inputs.append(rule.learn_block(k, inputs[k], batch)[0])
    return inputs


def _of_block(rule: Pipelined, k: int, h: Tensor, full: Phase) -> Descent:
    """Return the phase in which block k alone learns, from the same input h_k each time."""

    def gradients(batch: Batch) -> Metrics:
        given = rule.first_input(batch)[0] if k == 0 else h
        return rule.learn_block(k, given, batch)[1]

    return Descent(full.name, full.parameters, gradients, predict=full.predict)


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
    seconds = []
    for _ in _repeats():
        dist.barrier()
        seconds.append(_timed(work, device))
    return sorted(seconds[1:])[PINGS // 2]


def _repeats() -> Iterator[int]:
    return iter(range(PINGS + 1))


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    synchronize(device)
    begin_s = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begin_s
