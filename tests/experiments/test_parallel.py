"""experiments/parallel/simulate.py, which stands outside the package: a simulation of more ranks than were measured."""

import json
import shutil
from pathlib import Path

import pytest

from localearn.benching.parallel import Costs
from tests.helpers.programs import program

ROOT = Path(__file__).parents[2]
COSTS = Costs(
    step_s=4.0, block_s=(1.0, 1.0, 1.0, 1.0), message_s=0.0, latency_s=0.0, reduce_s=1.0, reduce_latency_s=0.2
)


@pytest.fixture(scope="module")
def simulate():
    return program("parallel/simulate.py")


def test_a_rank_alone_takes_the_sum_of_its_batches(simulate):
    assert simulate.layers_s([3.0], 1.0, 9.0, batches=5, ahead=2) == 15.0
    assert simulate.data_s(COSTS, ranks=1, batches=5) == 20.0


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_equal_ranks_in_a_row_wait_at_the_beginning_and_the_end_alone(simulate, ranks):
    """Each rank starts when the one before is through but for half a block."""
    assert simulate.layers_s([2.0] * ranks, 1.0, 0.0, batches=10, ahead=2) == pytest.approx(
        10 * 2.0 + (ranks - 1) * 1.5
    )


def test_the_slowest_rank_sets_the_pace(simulate):
    even, uneven = (
        simulate.layers_s(shares, 0.0, 0.0, batches=100, ahead=2) for shares in ([2.0, 2.0, 2.0], [1.0, 4.0, 1.0])
    )
    assert uneven == pytest.approx(100 * 4 + 2)
    assert even == pytest.approx(100 * 2 + 4)


def test_a_rank_is_no_more_than_so_many_batches_ahead(simulate):
    """A fast first rank's message after that waits for the next one to take an older."""
    for ahead in (1, 2, 5):
        assert simulate.layers_s([1.0, 10.0], 0.0, 0.5, batches=20, ahead=ahead) == pytest.approx(20 * 10.5 + 1.5)


def test_messages_take_time_on_both_sides(simulate):
    assert simulate.layers_s([2.0, 2.0], 0.0, 0.25, batches=50, ahead=2) == pytest.approx(50 * 2.25 + 2.25)


def test_a_ring_moves_the_gradients_twice_but_for_a_share(simulate):
    assert simulate.data_s(COSTS, ranks=2, batches=1) == pytest.approx(4 + 1.0)
    moved = COSTS.reduce_s - COSTS.reduce_latency_s
    assert simulate.data_s(COSTS, ranks=8, batches=3) == pytest.approx(3 * (4 + 14 * 0.1 + 14 / 8 * moved))


def test_ranks_without_costs_of_their_own_bring_all_that_they_could(simulate):
    free = Costs(4.0, (1.0,) * 4, 0.0, 0.0, 0.0, 0.0)
    told = simulate.simulated(free, ranks=8, batches=1000)
    assert told["data"] == pytest.approx(8.0)
    assert 7.9 < told["layers"] < 8.0
    assert simulate.simulated(free, 1, 10) == {"data": 1.0, "layers": 1.0}


def test_a_busy_neighbour_counts_on_this_machine_alone(simulate):
    slow = Costs(4.0, (1.0,) * 4, 0.0, 0.0, 0.0, 0.0, contention=1.25, in_step=1.6)
    assert simulate.simulated(slow, 2, 1000, here=True)["data"] == pytest.approx(2 / 1.6)
    assert simulate.simulated(slow, 2, 1000, here=True)["layers"] == pytest.approx(2 / 1.25, rel=1e-2)
    assert simulate.simulated(slow, 2, 1000)["data"] == pytest.approx(2.0)


def test_the_committed_simulation_is_that_of_the_committed_measurement(simulate, tmp_path, capsys):
    committed = ROOT / "results" / "bench" / "parallel"
    shutil.copy(committed / "parallel.json", tmp_path)
    assert simulate.main([str(tmp_path)]) == 0
    found = json.loads((tmp_path / "simulation.json").read_text())
    assert found == json.loads((committed / "simulation.json").read_text())
    # The two ranks that were measured, by the version of the bench that simulated itself.
    assert found == json.loads((committed / "parallel.json").read_text())["simulated"]
    page = (tmp_path / "simulation.md").read_text()
    assert page == (committed / "simulation.md").read_text() and "512 ranks" in page
    assert page in capsys.readouterr().out
