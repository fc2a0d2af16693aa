"""Time steps with freed memory returned to the system, and with it cached, in processes that take turns.

    python experiments/main_job/allocator.py

An MLP 3x2000 with 512 rows of 784 and a CNN 32-64-128 with 128 rows of 3x32x32, both in float32 by Adam. The ratio is
taken within a turn; medians over the turns. Writes results/bench/probes/allocator.json.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from localearn.files import replace_text

TURNS, WARM_UP, STEPS = 5, 3, 10
RULES = ("backprop", "mono_forward", "forward_forward")
NETS = {
    "mlp": (["net.widths=[2000,2000,2000]"], (784,), 512),
    "cnn": (["net=cnn", "net.channels=[32,64,128]", "recipe=maps"], (3, 32, 32), 128),
}


def child(net: str, rule: str, keep: bool) -> dict[str, float]:
    """Return the median step in seconds, the system's seconds and the largest resident set, of this process."""
    from localearn.allocator import keep_freed_memory

    if keep:
        keep_freed_memory()
    import torch
    from omegaconf import OmegaConf

    from localearn import cli
    from localearn.benching.workload import Point, Workload

    options, shape, batch = NETS[net]
    config: Any = OmegaConf.to_container(cli.compose([f"algo={rule}", *options])[0], resolve=True)
    work, seconds = Workload(rule, config, Point(net, shape, batch, "fp32", torch.device("cpu"))), []
    for step in range(WARM_UP + STEPS):
        started_s = time.perf_counter()
        work.step()
        if step >= WARM_UP:
            seconds.append(time.perf_counter() - started_s)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"step_s": statistics.median(seconds), "system_s": used.ru_stime, "resident_bytes": used.ru_maxrss * 1024}


def main() -> None:
    """Measure and write."""
    if len(sys.argv) > 1:
        if len(sys.argv) != 4 or sys.argv[1] not in NETS:  # but what a process of a turn is asked
            sys.exit(f"error: there are no options, so not {' '.join(sys.argv[1:])}")
        net, rule, keep = sys.argv[1:]
        print(json.dumps(child(net, rule, keep == "keep")))
        return
    found = {}
    for net in NETS:
        for rule in RULES:
            turns = []
            for _ in range(TURNS):
                outcomes = {}
                for how in ("give", "keep"):
                    asked = [sys.executable, __file__, net, rule, how]
                    outcomes[how] = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
                turns.append(outcomes)
            ratios = {
                name: statistics.median(turn["keep"][name] / turn["give"][name] for turn in turns)
                for name in ("step_s", "resident_bytes")
            }
            found[f"{net} {rule}"] = {"ratios": ratios, "turns": turns}
            print(net, rule, {name: round(value, 3) for name, value in ratios.items()}, flush=True)
    target = Path(__file__).parents[2] / "results" / "bench" / "probes" / "allocator.json"
    replace_text(target, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
