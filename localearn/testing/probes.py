"""Probes of the conformance suite: batches changed, phases begun and trained, gradients and solutions collected."""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from localearn.data import Batch
from localearn.tasks import Task
from localearn.tasks.language import PADDING
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent, Phase, Solve, completed, in_parts


def moved(batch: Batch, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
    """Return the batch on a device, its x of a dtype where it is of values.

    Args:
        batch: the batch.
        device: None: where it is.
        dtype: None: as it is.

    """
    nodes = None if batch.nodes is None else batch.nodes.to(device)
    context = tuple(c.to(device) for c in batch.context)
    x = batch.x.to(device=device, dtype=dtype if batch.x.is_floating_point() else None)
    return Batch(x, batch.y.to(device), context, nodes)


def doubled(batch: Batch) -> Batch:
    """Return the batch with every row twice; a graph stands next to its own copy.

    Args:
        batch: the batch.

    """
    n = len(batch.x)
    return Batch(
        torch.cat([batch.x, batch.x]),
        torch.cat([batch.y, batch.y]),
        tuple(torch.cat([edges, edges + n], dim=1) for edges in batch.context),
        None if batch.nodes is None else torch.cat([batch.nodes, batch.nodes + n]),
    )


def padded(batch: Batch) -> Batch:
    """Return a batch of token ids with three rows more, whose targets are padding alone.

    Args:
        batch: the batch.

    """
    more = torch.zeros_like(batch.x[:3]), torch.full_like(batch.target[:3], PADDING)
    return replace(batch, x=torch.cat([batch.x, more[0]]), target=torch.cat([batch.target, more[1]]))


def autocast(precision: str, device: str = "cpu") -> torch.autocast:
    """Return the context in which a step runs at a precision.

    Args:
        precision: fp32 or bf16.
        device: its type.

    """
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def phased(trainer: Trainer, batch: Batch) -> Iterator[tuple[Phase, Batch]]:
    """Yield each phase in turn, in training mode, with its batch.

    Args:
        trainer: the rule.
        batch: the batch, whose x is the net's input.

    """
    for phase in trainer.phases():
        yield phase, begun(trainer, phase, batch)


def begun(trainer: Trainer, phase: Phase, batch: Batch) -> Batch:
    """Begin a phase, in training mode, and return its batch, whose x is the phase's input.

    Args:
        trainer: the rule.
        phase: one of its phases.
        batch: the batch, whose x is the net's input.

    """
    trainer.eval()
    with torch.no_grad():
        x = phase.input(batch.x, *batch.context)
    trainer.train()
    phase.freeze()
    return replace(batch, x=x)


def halves(batch: Batch) -> list[Batch]:
    """Return the batch as two, the rows shared out between them; of a graph, its labelled nodes.

    Args:
        batch: the batch.

    """
    if batch.nodes is not None:
        pairs = zip(batch.y.chunk(2), batch.nodes.chunk(2), strict=True)
        return [replace(batch, y=y, nodes=nodes) for y, nodes in pairs]
    return [replace(batch, x=x, y=y) for x, y in zip(batch.x.chunk(2), batch.y.chunk(2), strict=True)]


@torch.no_grad()
def solve(phase: Solve, *batches: Batch) -> dict[str, Tensor]:
    """Take a phase through batches to its solution; return what `solve` returns.

    Args:
        phase: begun already.
        batches: their x are the phase's input.

    """
    for batch in batches:
        phase.accumulate(batch)
    return phase.solve()


def learn(phase: Phase, batch: Batch) -> dict[str, Tensor]:
    """Let a phase fill `.grad` from a batch, or solve itself from it; return the metrics.

    Args:
        phase: begun already.
        batch: its x is the phase's input.

    """
    if isinstance(phase, Solve):
        return solve(phase, batch)
    assert isinstance(phase, Descent)
    return completed(phase.gradients(batch))


def train(
    trainer: Trainer, batch: Batch, steps: int, lr: float, precision: str = "fp32", *, blocks: bool = True
) -> Trainer:
    """Train all phases on one batch, each for some batches by Adam, or in its one pass; return the rule.

    Args:
        trainer: the rule.
        batch: the batch, whose x is the net's input.
        steps: of each phase.
        lr: the learning rate, but for the parameters that have one of their own.
        precision: fp32 or bf16.
        blocks: whether the blocks are trained, or held still.

    """
    for phase, inputs in phased(trainer, batch):
        if isinstance(phase, Descent):
            _descend(trainer, phase, inputs, steps, lr, precision, blocks)
        else:
            with autocast(precision, batch.x.device.type):
                learn(phase, inputs)
    return trainer


def _descend(
    trainer: Trainer, phase: Descent, batch: Batch, steps: int, lr: float, precision: str, blocks: bool
) -> None:
    optimizer = torch.optim.Adam(phase.optimizer_groups(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        parts = in_parts(lambda: phase.gradients(batch), autocast(precision, batch.x.device.type))
        for _ in parts if phase.steps > 1 else [completed(parts)]:
            if not blocks:
                trainer.net.blocks.zero_grad(set_to_none=True)
            optimizer.step()
            if phase.steps > 1:
                optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def scored(trainer: Trainer, batch: Batch) -> Tensor:
    """Return the rule's predictions for the labelled rows, (M, C), in evaluation mode.

    Args:
        trainer: the rule.
        batch: the batch.

    """
    trainer.eval()
    return batch.rows(trainer.predict(batch.x, *batch.context))


def loss_of(trainer: Trainer, batch: Batch) -> float:
    """Return the task's mean loss of the rule's scores.

    Args:
        trainer: the rule.
        batch: the batch.

    """
    return trainer.task.mean_loss(scored(trainer, batch).float(), batch.target).item()


def errors_of(trainer: Trainer, batch: Batch) -> float:
    """Return the share of the labelled rows, or of positions that count, whose largest score is not their label's.

    Args:
        trainer: the rule.
        batch: the batch.

    """
    counted = trainer.task.counted(batch.target)
    wrong = scored(trainer, batch).argmax(-1) != batch.target
    return (wrong if counted is None else wrong[counted]).float().mean().item()


def chance(judged_by: str, task: Task, batch: Batch) -> float:
    """Return the least loss, or errors, of scores that are the same for every row and position.

    Args:
        judged_by: "loss" or "errors".
        task: the task.
        batch: the batch, for its targets.

    """
    if judged_by == "errors":
        counted = task.counted(batch.target)
        shares = (batch.target if counted is None else batch.target[counted]).bincount()
        return 1 - (shares.max() / shares.sum()).item()
    best = torch.zeros(task.outputs, dtype=torch.float64, requires_grad=True)
    elements = batch.target.shape if task.per_position else batch.target.shape[:1]
    elements = batch.x.shape[:2] if task.pools_positions else elements
    optimizer = torch.optim.LBFGS([best], line_search_fn="strong_wolfe", max_iter=100)

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = task.mean_loss(best.expand(*elements, -1), batch.target)
        found.backward()
        return found

    optimizer.step(loss)
    return loss().item()


def gradients_of(
    trainer: Trainer, batch: Batch, *, seed: int = 0, then_change: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Return the gradients of each phase of steps, by `phase/parameter`; the rule itself stays as it is.

    Args:
        trainer: the rule.
        batch: the batch.
        seed: of its random draws.
        then_change: parameters that change behind torch's back as soon as the logits are there, that is, after the last
            call of the readout in a phase. Code that reads them after that, a transposed weight say, reads the changed
            ones.

    """
    found = {}
    for index, phase in enumerate(trainer.phases()):
        if isinstance(phase, Solve):
            continue
        trial, of_trial, inputs = _trial(trainer, index, batch)
        memory = [trial.get_parameter(name).detach().numpy() for name in then_change]
        calls_left = _readout_calls(trainer, index, batch, seed) if memory else 0

        def change(*_: object, memory: list[np.ndarray] = memory) -> None:
            nonlocal calls_left
            calls_left -= 1
            if calls_left == 0:
                for values in memory:
                    values += 1

        trial.net.readout.register_forward_hook(change)
        torch.manual_seed(seed)
        learn(of_trial, inputs)
        for name, p in trial.named_parameters():
            if p.grad is not None:
                found[f"{phase.name}/{name}"] = p.grad
    return found


def solutions_of(trainer: Trainer, batch: Batch, *, parts: int = 1) -> dict[str, Tensor]:
    """Return the parameters that each `Solve` sets, by `phase/parameter`; the rule itself stays as it is.

    Args:
        trainer: the rule.
        batch: the batch.
        parts: the number of batches in which the rows come, 1 or 2.

    """
    found = {}
    for index, phase in enumerate(trainer.phases()):
        if not isinstance(phase, Solve):
            continue
        trial, of_trial, inputs = _trial(trainer, index, batch)
        assert isinstance(of_trial, Solve)
        solve(of_trial, *(halves(inputs) if parts == 2 else [inputs]))
        for name, p in trainer.named_parameters():
            if any(p is member for member in phase.parameters):
                found[f"{phase.name}/{name}"] = trial.get_parameter(name).detach()
    return found


def _trial(trainer: Trainer, index: int, batch: Batch) -> tuple[Trainer, Phase, Batch]:
    """Return a copy of a rule, its phase of that number, begun, and the batch for it."""
    trial = copy.deepcopy(trainer)
    phase = trial.phases()[index]
    return trial, phase, begun(trial, phase, batch)


def learned_from(trainer: Trainer, batch: Batch, *, seed: int = 0) -> dict[str, Tensor]:
    """Return the gradients of the phases of steps and the solutions of the others.

    Args:
        trainer: the rule.
        batch: the batch.
        seed: of its random draws.

    """
    return gradients_of(trainer, batch, seed=seed) | solutions_of(trainer, batch)


def _readout_calls(trainer: Trainer, index: int, batch: Batch, seed: int) -> int:
    trial, phase, inputs = _trial(trainer, index, batch)
    calls = []
    trial.net.readout.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(seed)
    learn(phase, inputs)
    return len(calls)


@contextlib.contextmanager
def block_inputs(trainer: Trainer) -> Iterator[list[str]]:
    """Collect the blocks that are given an input with a gradient's history: a path into the block before.

    Args:
        trainer: the rule.

    """
    crossed: list[str] = []
    hooks = []
    for k in range(trainer.net.depth):
        block = trainer.net.block(k)

        def look(_: nn.Module, args: tuple[Tensor, ...], k: int = k) -> None:
            if args[0].grad_fn is not None:
                crossed.append(f"block {k + 1}")

        hooks += [block.register_forward_pre_hook(look), block.op.register_forward_pre_hook(look)]
    try:
        yield crossed
    finally:
        for hook in hooks:
            hook.remove()


def parameters_after(trainer: Trainer, k: int, *, readout: bool) -> list[str]:
    """Return the names of the parameters of the blocks after block k.

    Args:
        trainer: the rule.
        k: the block, 0..L-1.
        readout: whether the readout counts.

    """
    later = tuple(f"net.blocks.{j}." for j in range(k + 1, trainer.net.depth))
    names = [name for name, _ in trainer.named_parameters()]
    return [n for n in names if n.startswith(later) or (readout and n.startswith("net.readout."))]


def of_block(gradients: dict[str, Tensor], k: int) -> dict[str, Tensor]:
    """Return the gradients of block k's own parameters.

    Args:
        gradients: by name.
        k: the block, 0..L-1.

    """
    return {name: grad for name, grad in gradients.items() if f"/net.blocks.{k}." in name}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Return the names at which two sets of tensors are not the same bit for bit.

    Args:
        one: tensors by name.
        other: tensors by name.

    """
    names = one.keys() | other.keys()
    return sorted(n for n in names if n not in one or n not in other or not torch.equal(one[n], other[n]))
