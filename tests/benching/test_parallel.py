"""What a second process brings: measured, simulated, told."""

import json
import os

import pytest

from localearn.benching import parallel
from localearn.benching.simulation import Costs, data_s, layers_s
from localearn.cli import bench, bench_parallel
from localearn.cli.errors import run_command
from localearn.errors import UserError

COSTS = Costs(
    step_s=4.0, block_s=(1.0, 1.0, 1.0, 1.0), message_s=0.0, latency_s=0.0, reduce_s=1.0, reduce_latency_s=0.2
)


def test_a_rank_alone_takes_the_sum_of_its_batches():
    assert layers_s([3.0], 1.0, 9.0, batches=5, ahead=2) == 15.0
    assert data_s(COSTS, ranks=1, batches=5) == 20.0


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_equal_ranks_in_a_row_wait_at_the_beginning_and_the_end_alone(ranks):
    """Each rank starts when the one before is through but for half a block."""
    assert layers_s([2.0] * ranks, 1.0, 0.0, batches=10, ahead=2) == pytest.approx(10 * 2.0 + (ranks - 1) * 1.5)


def test_the_slowest_rank_sets_the_pace():
    even, uneven = (layers_s(shares, 0.0, 0.0, batches=100, ahead=2) for shares in ([2.0, 2.0, 2.0], [1.0, 4.0, 1.0]))
    assert uneven == pytest.approx(100 * 4 + 2)
    assert even == pytest.approx(100 * 2 + 4)


def test_a_rank_is_no_more_than_so_many_batches_ahead():
    """A fast first rank's message after that waits for the next one to take an older."""
    for ahead in (1, 2, 5):
        assert layers_s([1.0, 10.0], 0.0, 0.5, batches=20, ahead=ahead) == pytest.approx(20 * 10.5 + 1.5)


def test_messages_take_time_on_both_sides():
    assert layers_s([2.0, 2.0], 0.0, 0.25, batches=50, ahead=2) == pytest.approx(50 * 2.25 + 2.25)


def test_a_ring_moves_the_gradients_twice_but_for_a_share():
    assert data_s(COSTS, ranks=2, batches=1) == pytest.approx(4 + 1.0)
    moved = COSTS.reduce_s - COSTS.reduce_latency_s
    assert data_s(COSTS, ranks=8, batches=3) == pytest.approx(3 * (4 + 14 * 0.1 + 14 / 8 * moved))


def test_ranks_without_costs_of_their_own_bring_all_that_they_could():
    free = Costs(4.0, (1.0,) * 4, 0.0, 0.0, 0.0, 0.0)
    told = parallel.simulated(free, ranks=8, batches=1000)
    assert told["data"] == pytest.approx(8.0)
    assert 7.9 < told["layers"] < 8.0
    assert parallel.simulated(free, 1, 10) == {"data": 1.0, "layers": 1.0}


def test_a_busy_neighbour_counts_on_this_machine_alone():
    slow = Costs(4.0, (1.0,) * 4, 0.0, 0.0, 0.0, 0.0, beside=1.25, in_step=1.6)
    assert parallel.simulated(slow, 2, 1000, here=True)["data"] == pytest.approx(2 / 1.6)
    assert parallel.simulated(slow, 2, 1000, here=True)["layers"] == pytest.approx(2 / 1.25, rel=1e-2)
    assert parallel.simulated(slow, 2, 1000)["data"] == pytest.approx(2.0)


def test_ratios_are_taken_within_a_turn():
    times = {"alone": [4.0, 8.0, 4.0], "data": [5.0, 10.0, 5.0], "layers": [2.5, 5.0, 2.5]}
    costs = dict.fromkeys(("message_s", "latency_s", "reduce_s", "reduce_latency_s"), 0.1)
    costs |= {"step_s": 2.0, "beside_s": 2.2, "in_step_s": 3.0, "message_bytes": 1, "gradient_bytes": 2}
    costs = {**costs, "block_s": [1.0, 1.0]}
    found = parallel.read({"times": times, "costs": costs}, batches=2)
    assert (found.data.median, found.data.low, found.data.high) == pytest.approx((1.6, 1.6, 1.6))
    assert found.layers.median == pytest.approx(1.6)
    assert found.alone_s.median == 2.0
    assert (found.costs.beside, found.costs.in_step) == pytest.approx((1.1, 1.5))


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need a core each")
def test_two_processes_are_measured_and_more_are_planned(tmp_path, capsys):
    asked = ["parallel", "width=16", "batch=8", "batches=4", "turns=1", f"out={tmp_path}"]
    assert run_command(bench.main, asked) == 0
    record = json.loads((tmp_path / "parallel.json").read_text())
    assert record["measured"]["data"]["median"] > 0 and record["measured"]["layers"]["median"] > 0
    assert record["costs"]["gradient_bytes"] == 4 * (4 * (16 * 16 + 16) + 3 * 160 + 170)
    assert record["costs"]["message_bytes"] == 4 * 8 * 16
    assert set(record["simulated"]["plan"]) == {"1", "2", "8", "64", "512"}
    page = (tmp_path / "parallel.md").read_text()
    assert "| data | ×" in page and "| layers | ×" in page and "512 ranks" in page
    assert page in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need a core each")
def test_the_net_is_that_of_a_run(tmp_path):
    """Forward-Forward's net has places for the label, and its blocks output rows with true and with wrong labels."""
    asked = ["parallel", "rule=forward_forward", "algo.prediction=goodness", "width=16", "depth=2", "batch=8"]
    assert run_command(bench.main, [*asked, "batches=4", "turns=1", f"out={tmp_path}"]) == 0
    costs = json.loads((tmp_path / "parallel.json").read_text())["costs"]
    assert costs["gradient_bytes"] == 4 * ((16 + 10) * 16 + 16 + 16 * 16 + 16)
    assert costs["message_bytes"] == 4 * (2 * 8) * 16


@pytest.mark.slow
def test_a_rule_that_is_not_local_is_refused(tmp_path, capfd):
    assert run_command(bench.main, ["parallel", "rule=backprop", "width=8", "batch=4", f"out={tmp_path}"]) == 2
    told = capfd.readouterr().err
    assert "Backprop is not local" in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("depth=1", "depth takes whole numbers of 2 or more"),
        ("batch=0", "batch takes whole numbers"),
        ("wdith=4", "no option 'wdith'; did you mean 'width'"),
        ("precision=fp8", "precision is fp32 or bf16"),
        ("quick", "write key=value"),
    ],
)
def test_wrong_words_are_told(argument, said):
    with pytest.raises(UserError, match=said):
        bench_parallel.parse([argument])


def test_help(capsys):
    assert bench.main(["parallel", "--help"]) == 0
    assert "parallel=layers" in capsys.readouterr().out
