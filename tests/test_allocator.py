"""What a step frees is kept for the next one, and given back before memory is measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import localearn
from localearn.allocator import keep_freed_memory

PROGRAM = """
import json, resource, sys
from localearn.allocator import give_freed_memory_back, keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
import torch

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def step():
    first, second = torch.zeros(2**24), torch.zeros(2**24)  # 64 MiB each
    return first.add_(second).sum().item()

before = resident()
step()
held = resident()
give_freed_memory_back()
print(json.dumps({"kept": kept, "held": held - before, "given_back": held - resident()}))
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")


def ran(how, **environment):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | environment
    environment |= {"PYTHONPATH": str(Path(localearn.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@linux
def test_what_a_step_frees_stays_for_the_next_one():
    plain, keeping = ran("plain"), ran("keep")
    assert keeping["kept"] is True
    assert plain["held"] < 2**25 and keeping["held"] > 2**26


@pytest.mark.slow
@linux
def test_what_is_kept_is_given_back_before_memory_is_measured():
    assert ran("keep")["given_back"] > 2**26


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_a_users_own_choice_stays(name):
    assert keep_freed_memory({"PATH": "/bin", name: "1"}) is False
