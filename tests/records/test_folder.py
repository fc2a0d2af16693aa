"""A run's folder: its lock, its files, and the line that is told where one cannot be written."""

import errno
import os
import subprocess
import sys

import filelock
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from localearn.errors import UserError
from localearn.records.folder import LockedError, RunFolder, locked

HOLD = """
import sys, time
from pathlib import Path
from localearn.records.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def test_a_file_is_no_folder_of_a_run(tmp_path):
    file = tmp_path / "notes.txt"
    file.touch()
    with pytest.raises(UserError, match=r"^out=\S+notes.txt is no folder; name a new one"):
        RunFolder(file).create()


def test_a_folder_that_another_process_writes_is_refused_until_it_ends_or_dies(folder):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is writing"), folder.lock():
            pass
    finally:
        other.kill()
        other.communicate()
    with folder.lock():
        pass


def test_nothing_of_the_lock_is_left(folder):
    with folder.lock(), pytest.raises(UserError, match="another process"), RunFolder(folder.path).lock():
        pass
    assert list(folder.path.iterdir()) == []


def test_a_file_system_without_locks_is_written_all_the_same(folder, monkeypatch):
    def fails(self, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", fails)
    with folder.lock():
        folder.write_text(folder.config, "a: 1\n")
    assert folder.config.read_text() == "a: 1\n"


def test_an_error_inside_is_passed_on(folder):
    with pytest.raises(ValueError, match="mine"), folder.lock():
        raise ValueError("mine")
    with folder.lock():
        pass


@pytest.mark.parametrize("tied", ["weight", "layer", "view"])
def test_a_weight_that_layers_share_is_written_for_each_and_read_back(folder, tied):
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    if tied == "weight":
        second.weight = first.weight
    elif tied == "view":
        second.bias = nn.Parameter(first.weight.data[0])
    net = nn.Sequential(first, first if tied == "layer" else second)
    folder.save_net(net, {})
    saved = load_file(folder.net)
    assert saved.keys() == net.state_dict().keys()
    assert all(torch.equal(saved[name], value) for name, value in net.state_dict().items())


def failing(monkeypatch, number):
    def fails(self, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", fails)


def test_one_holds_and_no_other(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path, wait=False) as held:
        assert held
        with pytest.raises(LockedError), locked(path, wait=False):
            pass
    assert not path.exists()
    with locked(path, wait=True) as held:
        assert held


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_nothing_is_held(tmp_path, monkeypatch, number):
    failing(monkeypatch, number)
    with locked(tmp_path / "a.lock", wait=False) as held:
        assert not held


def test_a_folder_where_no_lock_can_be_made_is_told(tmp_path, monkeypatch):
    failing(monkeypatch, errno.EROFS)
    with pytest.raises(UserError, match="Read-only file system"), RunFolder(tmp_path).lock():
        pass
