"""The loss of each rule, step by step, as it was when the proofs beside this file held: a guard for refactoring.

Everything is float64 and made from sines, so no generator's next version changes it. A curve may change with a rule's
equations alone; then `python tests/trainers/test_golden.py` prints the new ones, and the commit says why.
"""

import math

import pytest
import torch

from localearn import MLP, Backprop, Batch, DirectFeedbackAlignment, ForwardGradient, MonoForward
from localearn.testing.probes import learn, phased

RULES = {
    "backprop": Backprop,
    "mono_forward": MonoForward,
    "mono_forward greedy": lambda net: MonoForward(net, schedule="greedy"),
    "direct_feedback_alignment": lambda net: DirectFeedbackAlignment(net, scale="width"),
    "forward_gradient weight": lambda net: ForwardGradient(net, space="weight", tangents=2),
    "forward_gradient activity": lambda net: ForwardGradient(net, space="activity", tangents=2),
}

GOLDEN = {
    "backprop": [1.260187192859, 0.973470807231, 0.761553960721, 0.568678251112],
    "mono_forward": [3.764507207696, 2.464756313537, 1.988650237656, 1.715231688685],
    "mono_forward greedy": [
        2.504320014837,
        1.432940336219,
        1.026531427539,
        0.809131240668,
        1.216211462157,
        1.138074235848,
        1.079273209689,
        1.024197239941,
    ],
    "direct_feedback_alignment": [1.192866051764, 1.13522458035, 1.095742264569, 1.063372652729],
    "forward_gradient weight": [1.260187192859, 1.115374255408, 0.983260882653, 0.89479287843],
    "forward_gradient activity": [1.260187192859, 0.977339446677, 0.738468197245, 0.530400149242],
}


def waves(shape, start, dtype=torch.float64, device="cpu"):
    return torch.sin(start + 1.7 * torch.arange(math.prod(shape), dtype=dtype, device=device)).view(shape)


def curve(rule):
    """Return the loss before each of four steps of SGD, in every phase."""
    trainer = rule(MLP(5, 3, widths=(6, 4)).double())
    drawn = 0

    def noise(*shape, **options):
        nonlocal drawn
        drawn += 1
        return math.sqrt(2) * waves(shape, drawn, **options)

    trainer.noise = noise
    with torch.no_grad():
        for i, (_, value) in enumerate(sorted(trainer.state_dict().items())):
            value.copy_(0.6 * waves(value.shape, i))
    batch = Batch(waves((9, 5), 0.5), torch.arange(9) % 3)
    losses = []
    for phase, inputs in phased(trainer, batch):
        optimizer = torch.optim.SGD(phase.parameters, lr=0.5)
        for _ in range(4):
            optimizer.zero_grad()
            losses.append(learn(phase, inputs)["loss"].item())
            optimizer.step()
    return losses


@pytest.mark.parametrize("name", RULES)
def test_the_loss_goes_as_it_went(name):
    assert curve(RULES[name]) == pytest.approx(GOLDEN[name], rel=1e-9)


if __name__ == "__main__":
    for name, rule in RULES.items():
        print(f"    {name!r}: {[round(loss, 12) for loss in curve(rule)]},")
