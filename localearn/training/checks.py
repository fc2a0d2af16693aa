"""Checks before training that rule, net, data and settings are compatible."""

import torch
from torch import nn

from localearn.data import Data
from localearn.energy.codecarbon import grid
from localearn.errors import UserError
from localearn.nets.physical import drifting
from localearn.trainers.base import Trainer
from localearn.trainers.phases import Descent
from localearn.training.diagnostics import check_alignment
from localearn.training.distributed import uses_sync_batch_norm
from localearn.training.early_stopping import monitored
from localearn.training.optimization import check_optimization
from localearn.training.runtime import select_device
from localearn.training.settings import Settings


def check(trainer: Trainer, data: Data, settings: Settings, ranks: int = 1) -> None:
    """Check that rule, data and settings can be trained together, without changing or training anything.

    Args:
        trainer: The rule on its net.
        data: The data set.
        settings: The options of the run.
        ranks: The number of processes that would train them, 1 or more.

    Raises:
        UserError: Where they cannot, naming what to change.

    """
    check_together(trainer, data, settings, ranks)
    check_steps(trainer, settings, select_device(settings.device))


def check_steps(trainer: Trainer, settings: Settings, device: torch.device) -> None:
    """Check that optimizer and schedule can be built, and stepped to the end of each phase.

    Args:
        trainer: The rule, whose phases take the epochs of the settings, or one where all are solved in closed form.
        settings: The options `optim`, `schedule` and `epochs`.
        device: The device of the optimizer's state.

    Raises:
        UserError: Where one of them cannot be built or stepped.

    """
    several = any(isinstance(phase, Descent) for phase in trainer.phases())
    check_optimization(settings.optim, settings.schedule, device, settings.epochs if several else 1)


def check_together(trainer: Trainer, data: Data, settings: Settings, ranks: int) -> None:
    """Check that rule, net and data can be trained together; optimizer and schedule are left to `check_steps`.

    Args:
        trainer: The rule on its net.
        data: The data set.
        settings: The options of the run.
        ranks: The number of processes that train them, 1 or more.

    Raises:
        UserError: Where they cannot, naming what to change.

    """
    type(trainer).supports(trainer.net, data)
    trainer.check_task(data.task)
    monitored(settings.monitor, data.task)
    if settings.country is not None:
        grid(settings.country)
    _check_parameters(trainer)
    _check_rows(trainer, data, settings)
    if ranks > 1:
        data.part(0, ranks)
    if settings.parallel == "data" and settings.batch_size % ranks:
        even = settings.batch_size - settings.batch_size % ranks
        nearest = f"{even} or {even + ranks}" if even else f"{ranks}"
        raise UserError(f"batch_size={settings.batch_size} cannot be divided over {ranks} ranks; use {nearest}")
    if settings.parallel == "data" and (system := next(iter(drifting(trainer)), None)):
        raise UserError(
            f"{system} drifts by each rank's own batches, so that ranks would train different nets; "
            "use parallel=layers, net.drift_rate=0, or one process"
        )
    last = data.sizes["train"] % settings.batch_size
    if settings.parallel == "data" and 1 < last < ranks and uses_sync_batch_norm(trainer):
        raise UserError(
            f"batch normalisation needs a row of each batch on each of {ranks} ranks, and the last of {data.name}'s "
            f"has {last}; use another batch_size, or dataset.train_size={data.sizes['train'] - last}"
        )
    if settings.diagnose == "alignment":
        check_alignment(trainer)


def _check_parameters(trainer: Trainer) -> None:
    """Raise UserError unless there is something to train, in the net and in every phase."""
    if any(t.is_inference() for t in (*trainer.parameters(), *trainer.buffers())):
        raise UserError("the net was built in inference_mode, where no tensor can be trained; build it outside of it")
    if any(p.is_meta for p in trainer.parameters()):
        raise UserError("the net is on the meta device, where parameters have no values; build it on another one")
    if not trainer.phases():
        raise UserError(f"{type(trainer).__name__}.phases() returns none, so there is nothing to train")
    trained = {"the net": trainer.net.parameters()}
    trained |= {f"phase {phase.name!r}": phase.parameters for phase in trainer.phases() if isinstance(phase, Descent)}
    for what, parameters in trained.items():
        if not any(p.requires_grad for p in parameters):
            raise UserError(f"{what} has nothing to train: all its parameters are frozen; set requires_grad of some")


def _check_rows(trainer: Trainer, data: Data, settings: Settings) -> None:
    """Raise UserError unless every split has rows, of the net's precision and enough of them for its layers."""
    for split, size in data.sizes.items():
        if not size:
            raise UserError(f"{data.name} has no labelled rows in its {split} split; every split needs one or more")
    dtype = next(data.batches("val", 1)).x.dtype
    cast = settings.precision == "bf16" and trainer.autocasts
    accepted = (torch.float32, torch.bfloat16) if cast else (dtype,)
    if not dtype.is_floating_point:  # token ids, which a net of any precision takes
        accepted = {p.dtype for p in trainer.net.parameters()}
    wrong = next((p.dtype for p in trainer.net.parameters() if p.dtype not in accepted), None)
    if wrong is not None:
        without_autocast = settings.precision == "bf16" and not trainer.autocasts
        remark = f", and {type(trainer).__name__} computes in the net's" if without_autocast else ""
        raise UserError(f"{data.name} has {dtype} and the net's parameters are {wrong}{remark}; use net.to({dtype})")
    rows = data.sizes["train"] if data.kind == "graph" else min(data.sizes["train"], settings.batch_size)
    if rows < 2 and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in trainer.modules()):
        raise UserError("batch normalisation needs 2 rows or more a step; use a larger batch_size, or net.norm=none")
