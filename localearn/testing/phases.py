"""Checks of a phase: that it fills `.grad` from a batch, or sums over it and solves for its parameters."""

import torch
from torch import Tensor

from localearn.data import Batch
from localearn.testing import probes
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Phase, Solve


def check_gradients(trainer: Trainer, phase: Phase, batch: Batch, precision: str) -> None:
    """Raise AssertionError unless `gradients` fills what it should.

    That is `.grad` of every parameter of the phase, finite and shaped as it, and of no other. Weights and batch stay,
    and the metrics are detached scalars, `loss` among them.
    """
    trainer.zero_grad(set_to_none=True)
    values, x = _values(trainer), batch.x.clone()
    with probes.autocast(precision):
        metrics = probes.learn(phase, batch)
    _check_metrics("gradients", metrics)
    for name, p in trainer.named_parameters():
        if not _trains(phase, p):
            assert p.grad is None, f"{name} has a .grad, and phase {phase.name!r} does not train it"
            continue
        assert p.grad is not None, f"{name} has no .grad in phase {phase.name!r}"
        assert p.grad.dtype == p.dtype and p.grad.shape == p.shape, f"{name}.grad is not shaped as {name}"
        assert p.grad.isfinite().all(), f"{name}.grad is not finite"
    assert not probes.differing(values, _values(trainer)), "gradients() changed a parameter; the optimizer does that"
    assert torch.equal(batch.x, x), "gradients() changed batch.x, which may be a view of the data set"


def check_solve(trainer: Trainer, phase: Solve, batch: Batch, precision: str) -> None:
    """Raise AssertionError unless `accumulate` only sums up and `solve` sets the phase's parameters from that alone.

    They are finite then, no other parameter has changed, there is no `.grad`, and no sum outlasts the pass. The metrics
    are those of `check_gradients`.
    """
    trainer.zero_grad(set_to_none=True)
    values, x, keys = _values(trainer), batch.x.clone(), trainer.state_dict().keys()
    with torch.no_grad(), probes.autocast(precision):
        phase.accumulate(batch)
        assert not probes.differing(values, _values(trainer)), "accumulate() changed a parameter; solve() does that"
        assert trainer.state_dict().keys() == keys, "what is summed is no part of the state, which a pass would enlarge"
        metrics = phase.solve()
    _check_metrics("solve", metrics)
    solution = _values(trainer)
    for name, p in trainer.named_parameters():
        assert p.grad is None, f"{name} has a .grad, and phase {phase.name!r} is solved in one pass"
        assert p.isfinite().all(), f"{name} is not finite"
        assert _trains(phase, p) or torch.equal(p, values[name]), f"phase {phase.name!r} changed {name}, not its own"
    assert torch.equal(batch.x, x), "accumulate() changed batch.x, which may be a view of the data set"
    with probes.autocast(precision):
        probes.solve(phase, batch)
    again = probes.differing(solution, _values(trainer))
    assert not again, f"a second pass ends with another {', '.join(again)}: solve() drops the sums"


def _check_metrics(source: str, metrics: dict[str, Tensor]) -> None:
    assert "loss" in metrics, f"{source}() returns no 'loss'"
    for name, value in metrics.items():
        assert value.dim() == 0, f"{name} is no scalar: its shape is {tuple(value.shape)}"
        assert not value.requires_grad, f"{name} is not detached"
        assert value.isfinite(), f"{name} is {value}"


def _values(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.named_parameters()}


def _trains(phase: Phase, parameter: Tensor) -> bool:
    return any(parameter is member for member in phase.parameters)
