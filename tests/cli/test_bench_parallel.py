"""Two processes against one: measured, and written down."""

import json
import os

import pytest

from localearn.cli import bench, bench_parallel
from localearn.cli.errors import run_command
from localearn.errors import UserError


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need a core each")
def test_two_processes_are_measured_and_more_are_planned(tmp_path, capsys):
    asked = ["parallel", "width=16", "batch=8", "batches=4", "turns=1", f"out={tmp_path}"]
    assert run_command(bench.main, asked) == 0
    record = json.loads((tmp_path / "parallel.json").read_text())
    assert record["measured"]["data"]["median"] > 0 and record["measured"]["layers"]["median"] > 0
    assert record["costs"]["gradient_bytes"] == 4 * (4 * (16 * 16 + 16) + 3 * 160 + 170)
    assert record["costs"]["message_bytes"] == 4 * 8 * 16
    page = (tmp_path / "parallel.md").read_text()
    assert "| data | ×" in page and "| layers | ×" in page
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
