"""Pictures of a run: drawn once by the run command, of a completed run, and never a reason to lose it."""

import sys

import pytest

TINY = ("dataset._target_=my_data.drawn", "net.widths=[6]", "epochs=1", "progress=false", "energy.enabled=false")

MODULE = """
import torch
import localearn
from localearn.data import ArrayData

CALLS = []

class Drawn(ArrayData):
    def illustrate(self, predict, folder):
        (batch,) = self.batches("test", 1000)
        out = predict(batch.x)
        CALLS.append((folder, out.requires_grad, tuple(out.shape), out.dtype))
        {body}

def drawn(name="x", **options):
    data = localearn.load("digits", train_size=60)
    data.__class__ = Drawn
    return data
"""


@pytest.fixture
def my_data(tmp_path, monkeypatch):
    def write(body):
        (tmp_path / "my_data.py").write_text(MODULE.format(body=body))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "my_data", raising=False)

    return write


def test_a_completed_run_is_illustrated_once_into_its_folder_and_its_lines_are_printed(door, my_data, tmp_path):
    my_data("(folder / 'picture.txt').write_text('seen'); return ('a picture: ' + str(folder / 'picture.txt'),)")
    ended = door(*TINY, "out=run")
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1] == "a picture: run/picture.txt"
    assert (tmp_path / "run" / "picture.txt").read_text() == "seen"
    calls = sys.modules["my_data"].CALLS
    assert [(str(folder), *rest[:2]) for folder, *rest in calls] == [("run", False, (359, 10))]


def test_where_a_picture_fails_the_run_is_completed_and_a_line_says_so(door, my_data, read):
    my_data("raise ValueError('no ink')")
    ended = door(*TINY, "out=run")
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[-1] == "illustration failed: ValueError: no ink"
    assert read.record("run")["status"] == "completed"


def test_the_weights_and_the_record_are_those_of_a_run_that_is_not_illustrated(door, my_data, read):
    my_data("return ()")
    assert door(*TINY, "out=drawn", "seed=3").status == 0
    assert door(*TINY[1:], "dataset=digits", "dataset.train_size=60", "out=plain", "seed=3").status == 0
    assert read.net("drawn") == read.net("plain") or (
        read.record("drawn")["metrics"] == read.record("plain")["metrics"]
    )


def test_a_run_that_is_not_completed_is_not_illustrated(door, my_data):
    my_data("return ('drawn',)")
    ended = door(*TINY, "out=run", "optim.lr=1e30", "epochs=3")
    assert ended.status == 3
    assert sys.modules["my_data"].CALLS == [] and "drawn" not in ended.out
