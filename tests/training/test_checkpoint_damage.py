"""Damage to a run's files: the right result, or one line that says so."""

import json
import os
import pickle
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from localearn.cli import export
from localearn.errors import UserError
from localearn.records.folder import append_checksum, is_intact
from localearn.training.loading import load_net
from tests.marks import posix, slow_but

SEED = 20261127


def flipped(content: bytes, draw: np.random.Generator) -> bytes:
    at, bit = draw.integers(len(content)), draw.integers(8)
    return content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :]


def zeroed(content: bytes, draw: np.random.Generator) -> bytes:
    at = draw.integers(len(content))
    width = min(64, len(content) - at)
    return content[:at] + bytes(width) + content[at + width :]


MUTATIONS = {
    "flipped": flipped,
    "zeroed": zeroed,
    "cut": lambda content, draw: content[: draw.integers(len(content))],
    "emptied": lambda content, draw: b"",
    "doubled": lambda content, draw: content + content,
    "noise": lambda content, draw: draw.bytes(200),
}
FILES = ("checkpoint.pt", "metrics.jsonl", "config.yaml", "run.json")


@pytest.fixture
def stopped(tiny, strike, door, read, tmp_path):
    """Return a stopped run's files, and the net that it ends with."""
    assert tiny("out=whole").status == 0
    strike(7, signal.SIGINT)
    assert tiny("out=run").status == 130
    return {path.name: path.read_bytes() for path in Path("run").iterdir()}, read.net("whole")


def restore(files):
    for path in Path("run").iterdir():
        path.unlink() if not path.is_dir() else path.rmdir()
    for name, content in files.items():
        Path("run", name).write_bytes(content)


@pytest.mark.parametrize("times", slow_but([3, 14], 3))
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_a_stopped_run_gives_the_right_net_or_one_line(name, times, stopped, door, read):
    files, right = stopped
    draw = np.random.default_rng([SEED, FILES.index(name)])
    refused = 0
    for kind, mutate in MUTATIONS.items():
        for _ in range(1 if kind in ("emptied", "doubled") else times):
            restore(files)
            Path("run", name).write_bytes(mutate(files[name], draw))
            ended = door("resume=run", "progress=false")
            told = [line for line in ended.err.splitlines() if not line.startswith("resume with")]
            assert "Traceback" not in ended.err and len(told) <= 2, (kind, ended.err)
            if ended.status == 0:
                assert read.net("run") == right, kind
            else:
                assert ended.status == 2 and told[-1].startswith("error: "), (kind, ended)
                refused += 1
    if name == "checkpoint.pt":
        assert refused == 0, "the checkpoint before it is there"


class Program:
    def __reduce__(self):
        return Path.write_text, (Path("canary"), "")


def test_a_checkpoint_that_is_a_program_is_not_run_and_nobody_is_told_how_to(stopped, door):
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        Path("run", name).write_bytes(pickle.dumps(Program()))
    ended = door("resume=run")
    assert ended.status == 2 and not Path("canary").exists()
    assert "holds other than tensors and plain values" in ended.err and "weights_only" not in ended.err
    assert "Warning" not in ended.err and len(ended.err.splitlines()) <= 2


def test_where_both_checkpoints_are_damaged_it_is_told(stopped, door):
    files, _ = stopped
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        Path("run", name).write_bytes(files[name][:-200])
    ended = door("resume=run")
    assert ended.status == 2 and "checkpoint.pt cannot be read as a checkpoint" in ended.err


def test_the_one_before_is_used_with_a_line(stopped, door, read):
    files, right = stopped
    content = bytearray(files["checkpoint.pt"])
    content[len(content) // 2] ^= 1
    Path("run/checkpoint.pt").write_bytes(content)
    ended = door("resume=run", "progress=false")
    assert ended.status == 0 and read.net("run") == right
    assert "checkpoint.pt is damaged" in ended.err and "checkpoint.previous.pt" in ended.err


def test_what_a_killed_run_left_half_written_is_cleared(stopped, door):
    for name in (".checkpoint.pt.123.tmp", ".run.json.4567.tmp"):
        Path("run", name).write_bytes(b"half")
    Path("run/.mine.tmp").write_bytes(b"")
    assert door("resume=run").status == 0
    assert [path.name for path in Path("run").glob(".*.tmp")] == [".mine.tmp"]


@pytest.mark.parametrize("name", ["checkpoint.pt", "config.yaml", "run.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
@posix
def test_what_is_no_regular_file_is_told(name, kind, stopped, door):
    Path("run", name).unlink()
    os.mkfifo(Path("run", name)) if kind == "pipe" else Path("run", name).mkdir()
    ended = door("resume=run", "progress=false")
    assert "Traceback" not in ended.err
    assert ended.status in (0, 2) and (ended.status == 0 or ended.err.splitlines()[-1].startswith("error: "))


def test_a_checkpoint_with_its_checksum_is_a_zip_archive_and_older_ones_are_read(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.ones(3)}, path)
    assert is_intact(path)
    append_checksum(path)
    assert is_intact(path) and zipfile.is_zipfile(path)
    assert torch.load(path, weights_only=True)["x"].sum() == 3


def test_weights_are_covered_by_a_checksum(tiny):
    assert tiny("epochs=1", "out=run").status == 0
    path = Path("run/net.safetensors")
    good = path.read_bytes()
    draw = np.random.default_rng(SEED)
    start = 8 + int.from_bytes(good[:8], "little")
    told = 0
    for kind, mutate in MUTATIONS.items():
        for _ in range(12):
            content = mutate(good, draw)
            if content == good:
                continue
            path.write_bytes(content)
            try:
                net = load_net("run")
            except UserError:
                told += 1
                continue
            path.write_bytes(good)
            right = load_net("run").state_dict()
            assert all(torch.equal(value, right[name]) for name, value in net.state_dict().items()), kind
    assert told > 40
    for at in draw.integers(start, len(good), 20):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(UserError, match="damaged"):
            load_net("run")


CHANGES = {
    "one missing": (lambda weights: weights.popitem(), "lacks the tensor"),
    "one too many": (lambda weights: weights.update(more=torch.zeros(1)), "has the tensor 'more'"),
    "another shape": (lambda weights: weights.update({next(iter(weights)): torch.zeros(2)}), r"has the shape \(2,\)"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_weights_of_another_net_are_told_by_name_and_shape(kind, tiny):
    change, told = CHANGES[kind]
    assert tiny("epochs=1", "out=run").status == 0
    path = Path("run/net.safetensors")
    weights = load_file(path)
    change(weights)
    options = json.loads(Path("run/run.json").read_text())["config"]["net"]
    described = {"input_shape": [1, 8, 8], "classes": 10, "net": options}
    save_file(weights, path, metadata={"localearn": json.dumps(described)})
    with pytest.raises(UserError, match=told):
        load_net("run")
    with pytest.raises(UserError, match=told):
        export.main(["run"])
