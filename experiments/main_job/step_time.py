"""Time a training step of each rule against backprop's, in one process.

    python experiments/main_job/step_time.py

An MLP 3x2000, batch 512, inputs of MNIST's and of CIFAR-10's size. A step is `gradients` and the fused optimizer's.
The rules take turns, two steps a turn, and the median over the turns is compared. Writes
results/main_job/step_time.json.
"""

import itertools
import json
import platform
import statistics
import time
from pathlib import Path

import torch

import localearn
from localearn.files import replace_text

WIDTHS, BATCH, CLASSES, TURNS = (2000, 2000, 2000), 512, 10, 15
RULES = {
    "backprop": localearn.Backprop,
    "mono_forward": localearn.MonoForward,
    "direct_feedback_alignment": localearn.DirectFeedbackAlignment,
    "forward_gradient (activity)": lambda net: localearn.ForwardGradient(net, space="activity", guess="noise"),
    "forward_gradient (weight)": lambda net: localearn.ForwardGradient(net, space="weight"),
}
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def measure(inputs: int, optimizer: str) -> dict[str, dict[str, float]]:
    """Return each rule's median step in seconds, its quartiles, and the ratio of its median to backprop's."""
    torch.manual_seed(0)
    batch = localearn.Batch(torch.randn(BATCH, inputs), torch.randint(0, CLASSES, (BATCH,)))
    steps = {}
    for name, rule in RULES.items():
        trainer = rule(localearn.MLP(inputs, CLASSES, widths=WIDTHS))
        parameters = trainer.phases()[0].parameters
        steps[name] = (trainer, OPTIMIZERS[optimizer](parameters, lr=1e-4, fused=True))
    seconds: dict[str, list[float]] = {name: [] for name in RULES}
    for turn in range(TURNS + 2):
        for name, (trainer, optim) in steps.items():
            started_s = time.perf_counter()
            for _ in range(2):
                optim.zero_grad(set_to_none=True)
                trainer.gradients(batch)
                optim.step()
            if turn >= 2:  # the first turns warm up
                seconds[name].append((time.perf_counter() - started_s) / 2)
    reference = statistics.median(seconds["backprop"])
    result = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        result[name] = {"median_s": median, "low_s": low, "high_s": high, "ratio": median / reference}
    return result


def arithmetic_limit(inputs: int) -> float:
    """Return mono_forward's matrix products over backprop's; no rule needs the gradient of the net's own input."""
    sizes = (inputs, *WIDTHS)
    weights = [a * b for a, b in itertools.pairwise(sizes)]
    return 2 * sum(weights) / (2 * sum(weights) + sum(weights[1:]))


def main() -> None:
    """Measure and write."""
    results = {"widths": WIDTHS, "batch": BATCH, "threads": torch.get_num_threads(), "torch": torch.__version__}
    results |= {"machine": platform.machine(), "cases": []}
    for inputs in (784, 3072):
        for optimizer in OPTIMIZERS:
            rules = measure(inputs, optimizer)
            case = {"inputs": inputs, "optimizer": optimizer, "mono_forward_limit": arithmetic_limit(inputs)}
            results["cases"].append({**case, "rules": rules})
            print(inputs, optimizer, {name: round(rule["ratio"], 3) for name, rule in rules.items()})
    path = Path("results/main_job/step_time.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
