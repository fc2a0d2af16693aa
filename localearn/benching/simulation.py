"""How long several ranks take, from what one block, one message and one all-reduce take."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """What was measured on this machine, in seconds.

    step_s: the update of a batch on one rank; block_s: each block's. message_s: of a batch's activations from one rank
    to the next; latency_s: of an empty message. reduce_s: of all gradients' reduction over two ranks;
    reduce_latency_s: of an empty one. beside: how much longer a rank takes over its updates while its machine's other
    ranks are busy too, for they share its memory; in_step: the same, where each step waits for the slowest of them.
    """

    step_s: float
    block_s: tuple[float, ...]
    message_s: float
    latency_s: float
    reduce_s: float
    reduce_latency_s: float
    beside: float = 1.0
    in_step: float = 1.0


def layers_s(shares: Sequence[float], last_block_s: float, message_s: float, batches: int, ahead: int) -> float:
    """Return the seconds that ranks in a row take for so many batches.

    shares: what a rank computes for a batch. A rank hands a batch on when half of its last block's work is left, its
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
