"""Ranks, started by torchrun or by hand."""

import subprocess
import sys

import pytest

from localearn.benching import parallel
from tests.helpers.processes import environment


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
