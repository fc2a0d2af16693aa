"""Time a step of every rule on a convolutional net in both memory layouts, in turns, in one process.

    python experiments/main_job/layouts.py

A CNN 32-64-128 with batch normalisation, 128 rows of 3x32x32, Adam, in float32 and bfloat16. The ratio is taken within
a turn; medians over the turns. Writes results/bench/probes/layouts.json. keep=true has the allocator keep what is
freed, as every door of localearn does, and writes layouts_kept.json.
"""

import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from localearn import cli
from localearn.allocator import keep_freed_memory
from localearn.benching.measure import Spread
from localearn.benching.plan import known_rules
from localearn.benching.workload import Point, Workload
from localearn.files import replace_text

TURNS, STEPS, KEEP = 9, 2, "keep=true" in sys.argv


def measure(rule: str, precision: str) -> dict[str, Any]:
    """Return a rule's median step in either layout, in seconds, and the ratio within a turn."""
    config: Any = OmegaConf.to_container(
        cli.compose([f"algo={rule}", "net=cnn", "net.channels=[32,64,128]", "recipe=maps"])[0], resolve=True
    )
    works = {
        layout: Workload(
            rule, config, Point("cnn", (3, 32, 32), 128, precision, torch.device("cpu"), memory_format=layout)
        )
        for layout in ("contiguous", "channels_last")
    }
    seconds: dict[str, list[float]] = {layout: [] for layout in works}
    for turn in range(TURNS + 1):
        for layout, work in works.items():
            started_s = time.perf_counter()
            for _ in range(STEPS):
                work.step()
            if turn:  # the first one warms up
                seconds[layout].append((time.perf_counter() - started_s) / STEPS)
    pairs = zip(seconds["channels_last"], seconds["contiguous"], strict=True)
    medians = {layout: statistics.median(values) for layout, values in seconds.items()}
    return {"step_s": medians, "ratio": vars(Spread.of([last / first for last, first in pairs]))}


def main() -> None:
    """Measure and write."""
    if set(sys.argv[1:]) - {"keep=true"}:
        sys.exit(f"error: the one option is keep=true, not {' '.join(sys.argv[1:])}")
    if KEEP:
        keep_freed_memory()
    found = {}
    for precision in ("fp32", "bf16"):
        for rule in known_rules():
            found[f"{rule} {precision}"] = figures = measure(rule, precision)
            ratio = figures["ratio"]
            print(
                f"{rule:<28}{precision}  ×{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]", flush=True
            )
    machine = {"processor": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    name = "layouts_kept.json" if KEEP else "layouts.json"
    target = Path(__file__).parents[2] / "results" / "bench" / "probes" / name
    replace_text(target, json.dumps({"machine": machine, "turns": TURNS, "rules": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
