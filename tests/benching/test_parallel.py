"""Two processes against one: measured, and written down."""

import json

import pytest

from localearn.benching import parallel


def test_ratios_are_taken_within_a_turn():
    times = {"alone": [4.0, 8.0, 4.0], "data": [5.0, 10.0, 5.0], "layers": [2.5, 5.0, 2.5]}
    costs = dict.fromkeys(("message_s", "latency_s", "reduce_s", "reduce_latency_s"), 0.1)
    costs |= {"step_s": 2.0, "contended_s": 2.2, "in_step_s": 3.0, "message_bytes": 1, "gradient_bytes": 2}
    costs = {**costs, "block_s": [1.0, 1.0]}
    found = parallel.read({"times": times, "costs": costs}, batches=2)
    assert (found.data.median, found.data.low, found.data.high) == pytest.approx((1.6, 1.6, 1.6))
    assert found.layers.median == pytest.approx(1.6)
    assert found.alone_s.median == 2.0
    assert (found.costs.contention, found.costs.in_step) == pytest.approx((1.1, 1.5))
    record = json.loads(json.dumps(found.costs.as_record()))
    assert record["beside"] == pytest.approx(1.1) and "contention" not in record
    assert parallel.Costs.from_record(record) == found.costs
    with pytest.warns(FutureWarning, match=r"^Costs\.beside is deprecated: use contention$"):
        assert found.costs.beside == found.costs.contention
