"""Which rank gets which blocks."""

import itertools
import random

import localearn
from localearn.training.distributed.pipeline import balance, block_costs


def test_blocks_are_cut_where_the_costliest_rank_has_the_least():
    """Against all cuts of random costs."""
    draw = random.Random(0)
    for _ in range(50):
        costs = [draw.randrange(10) for _ in range(draw.randrange(1, 8))]
        for parts in range(1, len(costs) + 1):
            spans = balance(costs, parts)
            assert [k for span in spans for k in span] == list(range(len(costs)))
            assert all(len(span) for span in spans) and len(spans) == parts
            worst = max(sum(costs[k] for k in span) for span in spans)
            inner = range(1, len(costs))
            cuts = ([0, *chosen, len(costs)] for chosen in itertools.combinations(inner, parts - 1))
            assert worst == min(max(sum(costs[a:b]) for a, b in itertools.pairwise(cut)) for cut in cuts)


def test_a_block_costs_its_multiply_adds():
    assert block_costs(localearn.MLP((5,), 3, widths=[7, 2])) == [35, 14]
    net = localearn.CNN((2, 8, 8), 3, channels=[4], norm="none")
    assert block_costs(net) == [4 * 2 * 9 * 64]
