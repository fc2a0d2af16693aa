"""The meter's check as a command: what it writes, what it prints, how it ends."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from localearn.cli import check_meter
from localearn.cli.errors import run_command
from localearn.energy.selftest import EXPECTATIONS, Bench, Outcome, Span, Verdict
from localearn.energy.selftest_load import MatrixLoad
from localearn.testing.energy import FakeClock, FakeCounter


@pytest.fixture
def steady_cpu():
    """Return the command of a machine without a card, whose CPU's every check has this verdict, in no time."""

    def arm(verdict: Verdict) -> Callable[[Sequence[str]], int]:
        clock = FakeClock()
        bench = Bench(torch.device("cpu"), FakeCounter(clock), MatrixLoad(torch.device("cpu")), clock.clock)
        bench.spans.append(Span("full load", 0.0, 2.0, 20.0, 2.0, 21.0, frozenset()))
        bench.trace += [(0.0, 10.0), (2.0, 11.0)]
        found = [Outcome("equal windows", "cpu", "a | b", verdict, {"first_j": 20.0, "difference": 0.01}, 0.03, "why")]
        return partial(check_meter.main, cpu=lambda seconds: (found, bench), cards=lambda: 0)

    return arm


@pytest.mark.parametrize(("verdict", "status"), [("passed", 0), ("failed", 1), ("not run", 0)])
def test_the_status_tells_whether_a_check_failed(steady_cpu, tmp_path, verdict: Verdict, status: int):
    main = steady_cpu(verdict)
    assert main([f"out={tmp_path / 'deep' / 'meter'}"]) == status


def test_the_record_the_page_and_the_plot(steady_cpu, tmp_path, capsys):
    main = steady_cpu("failed")
    main([f"out={tmp_path}", "seconds=3"])
    record = json.loads((tmp_path / "meter.json").read_text(), parse_constant=pytest.fail)
    assert (record["schema"], record["seconds"]) == (1, 3.0)
    assert record["machine"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert [check["check"] for check in record["checks"]] == [*EXPECTATIONS, "equal windows"]
    assert {(check["verdict"], check["reason"]) for check in record["checks"][:-1]} == {("not run", "no GPU")}
    assert record["checks"][-1]["figures"] == {"first_j": 20.0, "difference": 0.01}
    page = (tmp_path / "meter.md").read_text()
    assert "0 passed, 1 failed, 6 not run" in page
    assert "| cpu | equal windows | a \\| b | first 20 J; difference 1.0% | **failed**: why |" in page
    assert page.count("not run: no GPU") == len(EXPECTATIONS)
    assert "](power.png)" in page
    assert (tmp_path / "power.png").read_bytes().startswith(b"\x89PNG")
    assert "equal windows: failed (why)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("second=3", "did you mean 'seconds'"),
        ("seconds=0", "seconds takes seconds above 0, not '0'"),
        ("seconds=nan", "seconds takes seconds above 0"),
        ("seconds=", "seconds takes seconds above 0"),
        ("device=cuda", "torch sees 0 CUDA devices"),
        ("device=cuda:", "device is auto"),
        ("device=tpu", "device is auto"),
        ("out=/dev/null/x", "cannot be made"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(steady_cpu, capsys, argument: str, said: str):
    assert run_command(steady_cpu("passed"), [argument]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_this_machine_s_cpu_has_its_energy_checked(tmp_path):
    """Verdicts depend on what else the machine does; that the checks run and give figures does not."""
    outcomes, bench = check_meter.check_cpu(0.2)
    assert bench is not None
    run = {outcome.check: outcome for outcome in outcomes if outcome.verdict != "not run"}
    assert {"equal windows", "watts by load", "doubled load"} <= set(run)
    first_j = run["equal windows"].figures["first_j"]
    assert isinstance(first_j, float) and first_j > 0
    assert len(bench.spans) >= 3


def test_ctrl_c_ends_the_command_in_a_line(tmp_path):
    command = [sys.executable, "-u", "-m", "localearn.energy.check", "device=cpu", "seconds=60", f"out={tmp_path}"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs inherit that it is not
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, preexec_fn=heard) as process:
        assert process.stdout and process.stderr
        while "cpu: measuring" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        assert (process.returncode, process.stderr.read().splitlines()[-1:]) == (130, ["interrupted"])
