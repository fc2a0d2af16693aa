"""Simulate a rule's training on more ranks than were measured: `python experiments/parallel/simulate.py [DIR]`.

DIR, results/bench/parallel by default, holds the parallel.json of `python -m localearn.bench parallel`. Of one block's,
one message's and one all-reduce's time it makes the two ranks that were measured, to be compared with them, and then 8,
64 and 512 ranks. Writes DIR/simulation.json and DIR/simulation.md.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localearn.benching.parallel import RANKS, Costs
from localearn.files import replace_text
from localearn.training.distributed.pipeline import MAX_IN_FLIGHT

PLANNED = (1, 2, 8, 64, 512)


def main(arguments: Sequence[str]) -> int:
    """Simulate what a folder's parallel.json measured, and write it there; return the exit status."""
    folder = Path(arguments[0] if arguments else "results/bench/parallel")
    record = json.loads((folder / "parallel.json").read_text(encoding="utf-8"))
    found = simulation(record)
    texts = {"simulation.json": json.dumps(found, indent=1) + "\n", "simulation.md": page(record, found)}
    for name, text in texts.items():
        replace_text(folder / name, text)
    print(texts["simulation.md"])
    return 0


def simulation(record: dict[str, Any]) -> dict[str, Any]:
    """Return the ratios of work a second to one rank's: of the two ranks that were measured, and of each in PLANNED."""
    costs = Costs.from_record(record["costs"])
    batches, epoch = int(record["options"]["batches"]), int(record["options"]["epoch"])
    return {
        "measured_ranks": simulated(costs, RANKS, batches, here=True),
        "plan": {str(ranks): simulated(costs, ranks, epoch) for ranks in PLANNED},
    }


def page(record: dict[str, Any], found: dict[str, Any]) -> str:
    """Return simulation.md: the simulation against what was measured, and its plan."""
    own, here, plan = record["options"], found["measured_ranks"], found["plan"]
    measured = {mode: record["measured"][mode]["median"] for mode in here}
    lines = [
        f"# {own['rule']}: MLP {own['depth']}x{own['width']}, batch {own['batch']}, simulated",
        "",
        "    python experiments/parallel/simulate.py",
        "",
        f"Two ranks, {own['batches']} batches, as measured ([parallel.md](parallel.md)) and simulated:",
        "",
        "| parallel | measured, median | simulated | simulation's error |",
        "| --- | --- | --- | --- |",
        *(
            f"| {mode} | ×{ratio:.2f} | ×{here[mode]:.2f} | {100 * (here[mode] / ratio - 1):+.1f} % |"
            for mode, ratio in measured.items()
        ),
        "",
        f"## Work a second, of one process's, in epochs of {own['epoch']} batches",
        "",
        f"| parallel | {' | '.join(f'{ranks} ranks' for ranks in PLANNED)} |",
        "| --- |" + " --- |" * len(PLANNED),
        *(
            f"| {mode} | "
            + " | ".join(f"×{plan[str(n)][mode]:.2f} ({100 * plan[str(n)][mode] / n:.0f} % each)" for n in PLANNED)
            + " |"
            for mode in here
        ),
        "",
        "Nothing of more than 2 ranks was measured. data: this net, a batch for each rank, the gradients' all-reduce "
        "around a ring. layers: a net of as many blocks for each rank as here, all of the mean block's cost; an epoch "
        "begins and ends with ranks that wait. Every link is taken to be as this machine's, between two processes, and "
        "every rank to have a machine of its own, whose memory no other rank slows down.",
    ]
    return "\n".join(lines) + "\n"


def simulated(costs: Costs, ranks: int, batches: int, here: bool = False) -> dict[str, float]:
    """Return how much more work a second is done on so many ranks than on one.

    data: the measured net, a batch for each rank. layers: so deep a net that each rank has as many of its blocks as
    each of the two measured ones, against one rank that trains all of them. here: the two ranks of this machine, which
    slow each other down; else each has a machine's memory to itself.
    """
    alone = batches * costs.step_s
    if ranks == 1:
        return {"data": 1.0, "layers": 1.0}
    half = len(costs.block_s) // RANKS
    shares = [half * costs.step_s / len(costs.block_s)] * ranks
    if here:
        shares = [sum(costs.block_s[:half]), sum(costs.block_s[half:])]
    slow, in_step = (costs.contention, costs.in_step) if here else (1.0, 1.0)
    seconds = layers_s([slow * s for s in shares], slow * costs.block_s[-1], costs.message_s, batches, MAX_IN_FLIGHT)
    reducing_s = data_s(costs, ranks, batches) - alone
    return {"data": ranks * alone / (in_step * alone + reducing_s), "layers": batches * sum(shares) / seconds}


def layers_s(shares: Sequence[float], last_block_s: float, message_s: float, batches: int, ahead: int) -> float:
    """Return the seconds that ranks in a row take for so many batches.

    shares: what a rank computes for a batch. A rank sends a batch on when half of its last block's work is left, its
    loss and gradients; the message takes time of the processor on both sides, as it does over gloo. A rank is at most
    `ahead` batches before the next one.
    """
    ranks = len(shares)
    done = [[0.0] * (batches + 1) for _ in range(ranks)]  # done[r][t]: when rank r has finished batch t (from 1)
    begun = [[0.0] * (batches + 1) for _ in range(ranks)]
    arrived = [[0.0] * (batches + 1) for _ in range(ranks)]
    for batch in range(1, batches + 1):
        for rank, share in enumerate(shares):
            begin = max(done[rank][batch - 1], arrived[rank][batch])
            last = rank == ranks - 1
            if not last and batch > ahead:  # the next rank has taken the batch that came so many before
                begin = max(begin, begun[rank + 1][batch - ahead])
            begun[rank][batch] = begin
            done[rank][batch] = begin + share + message_s * ((rank > 0) + (not last))
            if not last:
                arrived[rank + 1][batch] = done[rank][batch] - last_block_s / 2
    return done[-1][batches]


def data_s(costs: Costs, ranks: int, batches: int) -> float:
    """Return the seconds that ranks with a batch each take for so many steps, with a ring's all-reduce.

        t(R) = 2 (R - 1) latency + 2 (R - 1) / R (t(2) - 2 latency)

    since each of a ring's 2 (R - 1) messages has an R-th of the gradients. All links are taken to be as the one here.
    """
    if ranks == 1:
        return batches * costs.step_s
    rounds, latency = 2 * (ranks - 1), costs.reduce_latency_s / 2
    moved = max(costs.reduce_s - 2 * latency, 0.0)
    return batches * (costs.step_s + rounds * latency + rounds / ranks * moved)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
