"""Synthetic records with realistic numbers, for tests of reports."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What makes one rule unlike another: accuracy, and time, power and memory as factors of backprop's.
RULES = {
    "backprop": (0.9722, 1.0, 1.0, 1.0),
    "mono_forward": (0.9748, 0.78, 0.97, 0.84),
    "direct_feedback_alignment": (0.9611, 0.83, 1.0, 0.99),
    "forward_forward": (0.9433, 3.9, 1.02, 1.1),
}


def record(algo: str = "backprop", seed: int = 0, machine: str = "cpu", **changes: Any) -> dict[str, Any]:
    """Return a decoded run.json: a GPU's energy is measured, a CPU's is estimated; changes replace fields."""
    noise = random.Random(f"{algo}-{seed}")
    accuracy, time, power, memory = RULES.get(algo, RULES["backprop"])
    train_s = 12.0 * time * noise.uniform(0.97, 1.03)
    made = {
        "schema": 1,
        "status": "completed",
        "algo": algo,
        "rule": f"localearn.trainers.{algo}",
        "dataset": "digits",
        "net": "mlp_2x256",
        "seed": seed,
        "protocol": "matched",
        "epochs": 20,
        "passes": 20.0,
        "stages": 1,
        "train_samples": 1294,
        "val_samples": 143,
        "test_samples": 360,
        "test_accuracy": accuracy + noise.uniform(-0.004, 0.004),
        "test_loss": 0.1,
        "val_accuracy": accuracy,
        "best_epoch": 17,
        "train_s": train_s,
        "eval_s": 0.2,
        "setup_s": 0.6,
        "samples_per_s": 1294 * 20 / train_s,
        "peak_memory_bytes": int((612 if machine == "cpu" else 934) * 2**20 * memory),
        "memory": {
            "allocator_bytes": None if machine == "cpu" else int(934 * 2**20 * memory),
            "process_bytes": int(612 * 2**20 * memory),
        },
        "parameters": 85002,
        "energy": energy(machine, train_s, power * noise.uniform(0.98, 1.02)),
        "co2e_kg": 2.1e-5 * train_s,
        "co2e": {"label": "estimated", "country": "POL", "intensity_kg_per_kwh": 0.62, "note": None},
        "device": {"type": "cpu", "name": "AMD EPYC 7763", "threads": 2, "memory_bytes": 8 * 2**30}
        if machine == "cpu"
        else {"type": "cuda", "name": "NVIDIA A100-SXM4-40GB", "threads": 8, "memory_bytes": 40 * 2**30},
        "precision": "fp32",
        "batch_size": 128,
        "capture": "off",
        "deterministic": False,
        "versions": {"localearn": "0.1.0", "python": "3.11.2", "torch": "2.15.0", "numpy": "2.4.6"},
        "data_fingerprint": f"sha256:{'ab' * 30}{seed}",
        "started": "2026-11-20T14:00:00+00:00",
        "finished": "2026-11-20T14:00:30+00:00",
        "seams": [],
        "config": {
            "algo": {"name": algo, "_target_": f"localearn.{algo}", "lr": 1e-3},
            "dataset": {"name": "digits"},
            "net": {"name": "mlp", "widths": [256, 256], "activation": "relu"},
            "seed": seed,
            "epochs": 20,
            "batch_size": 128,
            "clip_norm": None,
        },
        "error": None,
        "diagnostics": {},
    }
    return made | changes


def energy(machine: str, train_s: float, power: float) -> dict[str, Any]:
    """Return the energy of a run of `train_s` seconds; `power` is a factor of 38 W on a CPU and 180 W on a GPU."""
    absent = {"label": "absent", "source": None, "note": "no source", "idle_w": None, "windows": {}}
    if machine == "cpu":
        watts, idle_w, part, label, source = 38.0 * power, 6.0, "cpu", "estimated", "codecarbon"
    else:
        watts, idle_w, part, label, source = 180.0 * power, 55.0, "gpu", "measured", "nvml"
    train_j = watts * train_s
    windows = {
        name: {
            "energy_j": joules,
            "net_j": joules * 0.8,
            "duration_s": joules / watts,
            "uncertainty_j": 3.6,
            "flags": [],
        }
        for name, joules in {"setup": 21.0, "train": train_j, "eval": 9.0}.items()
    }
    headline = {
        "label": label,
        "source": source,
        "note": None,
        "idle_w": {"before": idle_w, "after": idle_w + 0.4},
        "windows": windows,
    }
    return {
        "train_j": train_j,
        "train_net_j": train_j - idle_w * train_s,
        "source": source,
        "label": label,
        "part": part,
        "train_uncertainty_j": 3.6,
        "parts": {"gpu": absent, "cpu": absent, "dram": absent} | {part: headline},
        "durations_s": {"setup": 0.6, "train": train_s, "eval": 0.2},
        "flags": [],
        "seams": [],
        "conditions": {} if machine == "cpu" else {"temperature_c": 58, "sm_clock_mhz": 1410, "power_limit_w": 400},
    }


def no_energy() -> dict[str, Any]:
    """Return the energy of a run that no source metered."""
    absent = {"label": "absent", "source": None, "note": "no source", "idle_w": None, "windows": {}}
    return {
        "train_j": None,
        "train_net_j": None,
        "source": None,
        "label": "absent",
        "part": None,
        "train_uncertainty_j": None,
        "parts": {"gpu": absent, "cpu": absent, "dram": absent},
        "durations_s": {"train": 12.0},
        "flags": [],
        "seams": [],
        "conditions": {},
    }


def epochs(made: dict[str, Any], count: int = 20) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl that lead to this record."""
    last, joules = made["test_accuracy"] or 0.9, made["energy"]["train_j"]
    lines = []
    for epoch in range(1, count + 1):
        share = epoch / count
        accuracy = last - 0.55 * last * 0.72**epoch
        lines.append(
            {
                "stage": 0,
                "epoch": epoch,
                "passes": float(epoch),
                "train_loss": 1 / epoch,
                "train_accuracy": accuracy,
                "val_loss": 1 / epoch,
                "val_accuracy": accuracy,
                "lr": 1e-3,
                "train_s": made["train_s"] * share,
                "train_j": None if joules is None else joules * share,
                "samples_per_s": made["samples_per_s"],
            }
        )
    return lines


def write_run(top: Path, made: dict[str, Any], name: str | None = None, curve: bool = True) -> Path:
    """Write a run's folder below `top` and return it."""
    folder = top / (name or f"{made['algo']}-{made['dataset']}-{made['seed']}")
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(made), encoding="utf-8")
    if curve:
        lines = "".join(json.dumps(line) + "\n" for line in epochs(made))
        (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder


HOSTILE = "<script>document.title='obeyed'</script>_a_rule_of_somebody_else"


def write_rich_runs(top: Path) -> None:
    """Write runs that fill a page: two nets, both protocols, flags, unlike settings, absent joules, hostile names."""
    packages = {f"package-{number:02d}": f"{number}.4.1" for number in range(60)}  # a table longer than a sheet
    versions = record()["versions"] | packages
    for seed in range(3):
        for algo in (*RULES, HOSTILE):
            made = record(algo, seed, machine="gpu", versions=versions)
            if algo == "forward_forward":
                made |= {"batch_size": 64, "precision": "bf16"}
            if algo == "direct_feedback_alignment" and seed == 1:
                made["energy"] = energy("cpu", made["train_s"], 1.0)
            if algo == "mono_forward":
                made["energy"]["flags"] = ["foreign_process", "throttled"]
                made["energy"]["parts"]["gpu"]["windows"]["train"]["flags"] = ["throttled"]
            write_run(top, made, f"matched-{algo[:5]}-{seed}")
            made = record(algo, seed, protocol="converged", energy=no_energy(), co2e=None, versions=versions)
            write_run(top, made, f"converged-{algo[:5]}-{seed}")
    for algo in ("cafo", "pepita"):
        write_run(top, record(algo, machine="gpu", versions=versions), f"matched-{algo}")
    for algo in ("backprop", "mono_forward"):  # with the nets above, a family of two depths
        made = record(algo, net="mlp_16x256", machine="gpu", versions=versions)
        made["peak_memory_bytes"] *= 4 if algo == "backprop" else 1
        made["config"]["net"]["widths"] = [256] * 16
        write_run(top, made, f"{algo}-16", curve=False)
    error = "the loss is nan after 312 steps; <img src=https://example.org/x.png onerror=alert(1)>"
    write_run(top, record(HOSTILE, 9, status="diverged", error=error, test_accuracy=None), "diverged")


def two_rules(seeds: Sequence[int] = (0, 1, 2), **changes: Any) -> list[dict[str, Any]]:
    """Return backprop's records, and mono_forward's with the changes."""
    baseline = [record("backprop", seed) for seed in seeds]
    return [*baseline, *(record("mono_forward", seed, **changes) for seed in seeds)]
