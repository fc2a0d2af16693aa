"""Ranks, started by torchrun or by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import localearn
from localearn.benching import parallel


def environment(**more):
    root = str(Path(localearn.__file__).parents[1])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **more}


@pytest.fixture(scope="session")
def launch():
    """Run a Python program on so many ranks, as torchrun does; return what came of it."""

    def launched(ranks, *arguments, options=(), cwd=None):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        return subprocess.run(
            [*torchrun, *options, *arguments], capture_output=True, text=True, timeout=100, check=False,
            env=environment(), cwd=cwd,
        )  # fmt: skip

    return launched


@pytest.fixture
def free_port():
    return parallel._free_port()


@pytest.fixture
def ranks_by_hand(tmp_path, free_port):
    """Start `localearn.run` as ranks of their own, without an agent beside them; each is killed in the end."""
    started = []

    def start(*overrides, size=2, **own):
        """Start a process for each rank; own: further overrides of a rank, rank_1=[...]."""
        for rank in range(size):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
            command = [sys.executable, "-m", "localearn.run", *overrides, *own.get(f"rank_{rank}", [])]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, **pipes, cwd=tmp_path, env=environment(**place)))
        return started[-size:]

    yield start
    for process in started:
        process.kill()
        process.communicate()
