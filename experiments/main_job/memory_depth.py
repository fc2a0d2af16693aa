"""Peak activation memory of a step against depth, for each rule.

    python experiments/main_job/memory_depth.py

Width 512, batch 4096. Counts the tensors that a step makes and the most that live at once; parameters, and gradients
that stand already, are not among them. Writes results/main_job/memory_depth.json and .png.
"""

import json
from pathlib import Path

import torch

import localearn
from localearn.files import atomic_write, replace_text
from localearn.training.memory import live_tensor_bytes

WIDTH, BATCH, DEPTHS = 512, 4096, (1, 2, 4, 8, 16, 32)
RULES = {
    "backprop": localearn.Backprop,
    "mono_forward": localearn.MonoForward,
    "direct_feedback_alignment": localearn.DirectFeedbackAlignment,
    "forward_gradient": lambda net: localearn.ForwardGradient(net, space="weight"),
}


def peak_bytes(rule, depth: int) -> int:
    """Return the most bytes of live tensors in one step."""
    torch.manual_seed(0)
    trainer = rule(localearn.MLP(WIDTH, 10, widths=[WIDTH] * depth))
    batch = localearn.Batch(torch.randn(BATCH, WIDTH), torch.randint(0, 10, (BATCH,)))
    trainer.gradients(batch)
    trainer.zero_grad(set_to_none=False)
    with live_tensor_bytes() as live:
        trainer.gradients(batch)
    return live.peak_bytes


def main() -> None:
    """Measure, write and plot."""
    peaks = {name: {depth: peak_bytes(rule, depth) for depth in DEPTHS} for name, rule in RULES.items()}
    out = Path("results/main_job")
    out.mkdir(parents=True, exist_ok=True)
    values = {"width": WIDTH, "batch": BATCH, "torch": torch.__version__, "peak_bytes": peaks}
    replace_text(out / "memory_depth.json", json.dumps(values, indent=2) + "\n")
    plot(peaks, out / "memory_depth.png")
    for name, by_depth in peaks.items():
        print(name, {depth: f"{peak / 2**20:.1f} MiB" for depth, peak in by_depth.items()})


def plot(peaks: dict[str, dict[int, int]], path: Path) -> None:
    """Draw peak memory against depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    markers = dict(zip(peaks, "osD^", strict=True))
    colours = dict(zip(peaks, ("#000000", "#0072B2", "#D55E00", "#009E73"), strict=True))
    for name, by_depth in peaks.items():
        mebibytes = [peak / 2**20 for peak in by_depth.values()]
        axes.plot(list(by_depth), mebibytes, marker=markers[name], color=colours[name], label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
    axes.set(xlabel="depth (blocks)", ylabel="peak activation memory of a step (MiB)", ylim=(0, None))
    axes.set_title(f"MLP, width {WIDTH}, batch {BATCH}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


if __name__ == "__main__":
    main()
