"""The loads of the meter's check: bursts of the declared length, and a second process."""

import io

import pytest
import torch

from localearn.energy.selftest_load import BURST_S, READY, MatrixLoad, load_until_end, loaded_by_another
from localearn.energy.sources import Clock


def test_a_burst_is_about_as_long_as_it_says():
    load, clock = MatrixLoad(torch.device("cpu")), Clock()
    begin_s = clock.now()
    for _ in range(5):
        load.burst()
    load.finish()
    assert 0.05 * BURST_S < (clock.now() - begin_s) / 5 < 50 * BURST_S


def test_the_second_process_loads_until_its_input_ends(capsys):
    load_until_end("cpu", io.StringIO())
    assert capsys.readouterr().out == f"{READY}\n"


def test_a_second_process_is_there_for_the_while(tmp_path):
    script, log = tmp_path / "python", tmp_path / "log"
    script.write_text(f'#!/bin/sh\necho "began $*" > {log}\necho {READY}\ncat\necho ended >> {log}\n')
    script.chmod(0o755)
    began = "began -m localearn.energy.selftest_load cuda:1\n"
    with loaded_by_another("cuda:1", str(script)):
        assert log.read_text() == began
    assert log.read_text() == began + "ended\n"


def test_a_second_process_that_does_not_start_is_told():
    none = pytest.raises(ChildProcessError, match="did not come to load cuda:9")
    with none, loaded_by_another("cuda:9", "false"):
        pytest.fail("nothing loads the card")
