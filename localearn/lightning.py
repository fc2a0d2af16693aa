"""Train a rule in Lightning's loop, with Lightning's callbacks, loggers and checkpoints.

    import lightning
    from localearn.lightning import RuleDataModule, RuleModule

    data = localearn.load("digits")
    rule = localearn.MonoForward(localearn.MLP(data.input_shape, data.classes, widths=(256, 256)))
    trainer = lightning.Trainer(max_epochs=20, callbacks=[ModelCheckpoint(monitor="val_accuracy", mode="max")])
    trainer.fit(RuleModule(rule), RuleDataModule(data))

Optimization is manual in Lightning's sense, since no rule calls one backward pass of one loss. With the same `seed`,
and the batches of `RuleDataModule`, the weights are those of `localearn.fit(..., restore_best=False)`, bit for bit.

On several devices, by `Trainer(strategy="ddp", devices=2)`, the weights are those of as many ranks by `parallel=data`:
each process has its rows of every batch, and before a step the gradients that the rule has filled are averaged over
the rows of all. Lightning's own averaging waits for one backward pass of autograd, which no rule has, and is not used.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from localearn.data import Batch, Data, Split, as_data
from localearn.defaults import LEARNING, fit_options, kind_of
from localearn.errors import UserError, suggestion
from localearn.extras import not_usable
from localearn.trainers import Descent, Trainer
from localearn.training.distributed.data import DataRanks, fewest_rows
from localearn.training.distributed.ranks import Ranks
from localearn.training.optimization import step_schedule
from localearn.training.runtime import derived_seed, seed_random
from localearn.training.settings import Settings
from localearn.training.step import UPDATES, Update

try:
    from lightning import Callback, LightningDataModule, LightningModule
    from lightning.pytorch.strategies import DDPStrategy
except Exception as error:  # whatever a broken installation does
    raise not_usable("lightning", "localearn.lightning", "lightning", error) from error

# The options of `fit` that the module takes; epochs, early stopping, precision and devices are Lightning's.
OPTIONS = ("optim", "schedule", "clip_norm", "step")
RANK_TIMEOUT_S = 600.0  # that an error message names; the process group, and so its timeout, is Lightning's


class RuleModule(LightningModule):
    """A rule on its net as a LightningModule.

    It logs `train_loss` and the rule's own scalars, and, with the prefixes `val_` and `test_`, the loss and each metric
    of the task, which Lightning's callbacks can monitor: `EarlyStopping("val_accuracy", mode="max")`. A batch is a
    `localearn.data.Batch`, or (x, y) as a DataLoader returns it.

    Args:
        rule: The rule on its net.
        seed: The seed from which what the rule draws is seeded again in each epoch, as `localearn.fit` does; None
            leaves the random numbers to Lightning (`seed_everything`).
        options: `optim`, `schedule`, `clip_norm` and `step` as in `localearn.fit`; those left out are the rule's recipe
            for this kind of net, for the `max_epochs` of Lightning's Trainer.

    Raises:
        UserError: For another option; for a rule that learns in several phases, or by a closed form, which need
            `localearn.fit`; and for several devices by another strategy than DDP.

    Example:
        lightning.Trainer(max_epochs=20).fit(RuleModule(localearn.MonoForward(net)), train_loader, val_loader)

    """

    def __init__(self, rule: Trainer, *, seed: int | None = 0, **options: Any):
        super().__init__()
        for name in options:
            if name not in OPTIONS:
                raise UserError(f"RuleModule has no option {name!r}{suggestion(name, OPTIONS)}; others are Lightning's")
        self.automatic_optimization = False
        self.rule = rule
        self.seed, self._options = seed, options
        phases = list(rule.phases())
        if len(phases) != 1 or not isinstance(phases[0], Descent):
            names = ", ".join(phase.name for phase in phases)
            raise UserError(
                f"{type(rule).__name__} learns in phases ({names}), and Lightning's loop has one; use localearn.fit, "
                "or a rule's schedule=joint"
            )
        self._phase: Descent = phases[0]
        self._update: Update | None = None
        self._ranks = Ranks()
        self._measured: list[tuple[dict[str, Tensor], Tensor]] = []
        self._whole: list[tuple[Tensor, Tensor]] = []

    def setup(self, stage: str) -> None:
        """Set the task of a `RuleDataModule`, and raise UserError for what cannot be trained."""
        self._ranks = self._joined() if self.trainer.world_size > 1 else Ranks()
        data = getattr(getattr(self.trainer, "datamodule", None), "data", None)
        if isinstance(data, Data):
            type(self.rule).supports(self.rule.net, data)
            self.rule.task = data.task

    def _joined(self) -> DataRanks:
        """Return the ranks that Lightning has started; raise UserError where they cannot train one rule together."""
        strategy = self.trainer.strategy
        if type(strategy) is not DDPStrategy:  # DeepSpeed's, a subclass, divides the parameters
            raise UserError(
                f"RuleModule trains on several devices by DDP, not by {type(strategy).__name__}; use strategy='ddp', "
                "or devices=1"
            )
        if self._options.get("step", "all") == "block":
            raise UserError("strategy='ddp' reduces all gradients at once, and step=block drops each; use step=all")
        return DataRanks(strategy.root_device, RANK_TIMEOUT_S)

    def on_fit_start(self) -> None:
        """Give all ranks the rule of rank 0."""
        if isinstance(self._ranks, DataRanks):
            self._ranks.share_rule(self.rule)

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and the schedule where there is one."""
        epochs = self.trainer.max_epochs
        epochs = epochs if epochs and epochs > 0 else None
        values = not self.rule.task.exclusive
        found = fit_options(type(self.rule), kind_of(self.rule.net), "", epochs, values=values) | self._options
        settings = Settings.of(**{name: value for name, value in found.items() if name in (*LEARNING, "step")})
        self._settings = settings
        optimizer = settings.optim(self._phase.optimizer_groups())
        if settings.schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": settings.schedule(optimizer)}

    def on_train_epoch_start(self) -> None:
        """Put what the rule has frozen into evaluation mode, and seed what it draws."""
        self.rule.train()
        self._phase.freeze()
        if self.seed is not None:
            seed = derived_seed(derived_seed(self.seed, 0, self.current_epoch), 1)
            seed_random(self.device, self._ranks.seed(seed))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Fill the gradients by the rule, and step the optimizer.

        Args:
            batch: A `localearn.data.Batch`, or (x, y).
            batch_idx: Lightning's index of the batch; not used.

        """
        batch = _as_batch(batch)
        update = self._update
        if update is None:
            optimizer: Any = self.optimizers()
            same: Any = contextlib.nullcontext()  # Lightning has entered its own precision by now
            kind = UPDATES[self._settings.step]
            self._update = update = kind(self.rule, self._phase, optimizer, self._settings, same, self._ranks)
        metrics = update(batch)
        self.log_dict(
            {f"train_{name}": value.float() for name, value in metrics.items()},
            on_step=False,
            on_epoch=True,
            batch_size=len(batch.target),
            sync_dist=self._ranks.size > 1,
        )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average running statistics over the ranks after an epoch's last batch, before validation.

        Args:
            outputs: Not used.
            batch: Not used.
            batch_idx: Not used.

        """
        if self.trainer.is_last_batch:
            self._ranks.synchronize(self.rule)

    def on_train_epoch_end(self) -> None:
        """Step the schedule; one that waits for a plateau is given `val_loss`, or `train_loss` without validation."""
        schedule: Any = self.lr_schedulers()
        if schedule is not None:
            metrics = self.trainer.callback_metrics
            shown = metrics.get("val_loss", metrics.get("train_loss"))
            step_schedule(schedule, {"val_loss": None if shown is None else float(shown)})

    def on_fit_end(self) -> None:
        """Drop the optimizer, and make the rule one process's again."""
        self._update = None
        self._ranks.teardown(self.rule)

    def configure_callbacks(self) -> list[Any]:
        """Return a callback that ends the fit after an error, since only callbacks have a hook for one."""
        return [_EndedByError()]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Measure a batch of the validation split."""
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation split."""
        self._log_measured("val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Measure a batch of the test split."""
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split."""
        self._log_measured("test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the rule's (N, outputs) predictions of a batch."""
        batch = _as_batch(batch)
        return self.rule.predict(batch.x, *batch.context)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Return the rule's (N, outputs) predictions.

        Args:
            x: Rows, (N, ...).
            context: What every block takes next to its input, such as a graph's `edge_index`.

        """
        return self.rule.predict(x, *context)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device; tensors that are on it already are not copied.

        Args:
            batch: A `localearn.data.Batch`, or what Lightning moves by itself.
            device: The device.
            dataloader_idx: Lightning's index of the loader.

        """
        if not isinstance(batch, Batch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        index = None if batch.index is None else batch.index.to(device)
        return Batch(batch.x.to(device), batch.target.to(device), tuple(c.to(device) for c in batch.context), index)

    def _measure(self, batch: Any) -> None:
        batch, task = _as_batch(batch), self.rule.task
        if not len(batch.target):  # another rank has the rows of this batch
            return
        output = batch.select(self.rule.predict(batch.x, *batch.context)).float()
        self._measured.append(task.measure(output, batch.target))
        if task.needs_whole:
            self._whole.append((output, batch.target))

    def _log_measured(self, split: Literal["val", "test"]) -> None:
        sums: dict[str, Tensor] = {}
        rows: list[Tensor] = []
        if self._measured:
            sums = {name: torch.stack([own[name] for own, _ in self._measured]).sum(0) for name in self._measured[0][0]}
            sums["elements"] = torch.stack([elements for _, elements in self._measured]).sum()
            rows = [torch.cat(part) for part in zip(*self._whole, strict=True)]
        self._measured, self._whole = [], []
        if self._ranks.size > 1:  # of which one may have had no row
            sums, rows = _on_cpu(sums), [part.cpu() for part in rows]
            found = [(own, part) for own, part in self._ranks.all_gather_object((sums, rows)) if own]
            sums = {name: torch.stack([own[name] for own, _ in found]).sum(0) for own, _ in found[:1] for name in own}
            rows = [torch.cat(parts) for parts in zip(*(part for _, part in found), strict=True)]
        if not sums:
            return
        elements = sums.pop("elements")
        figures = self.rule.task.finish({name: total / elements for name, total in sums.items()}, *rows)
        self.log_dict(
            {f"{split}_{name}": value.float().to(self.device) for name, value in figures.items()},
            batch_size=1,
            sync_dist=self._ranks.size > 1,  # all have the same figure, of which Lightning would warn otherwise
        )


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


class RuleDataModule(LightningDataModule):
    """A localearn data set as a LightningDataModule: stored whole on the device, in the order of `localearn.fit`.

    Args:
        data: What `localearn.fit` takes: a Data, arrays (x, y), a torch Dataset, ...
        batch_size: Rows a step, 1 or more.
        eval_batch_size: Rows a step in validation and test, 1 or more.
        seed: The seed of the order, which differs in each epoch.

    """

    def __init__(self, data: Any, batch_size: int = 128, eval_batch_size: int = 1024, seed: int = 0):
        super().__init__()
        self.data = as_data(data)
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed

    def train_dataloader(self) -> "_Batches":
        """Return the training split's batches."""
        return _Batches(self, "train")

    def val_dataloader(self) -> "_Batches":
        """Return the validation split's batches."""
        return _Batches(self, "val")

    def test_dataloader(self) -> "_Batches":
        """Return the test split's batches."""
        return _Batches(self, "test")


class _Batches:
    """The batches of a split; each iteration yields them all."""

    split: Split

    def __init__(self, module: RuleDataModule, split: Split):
        self.module, self.split = module, split
        trainer = module.trainer
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        self.data, self.device = module.data.to(device), device
        if trainer and trainer.world_size > 1:
            rule = getattr(trainer.lightning_module, "rule", None)
            least = fewest_rows(rule) if split == "train" and isinstance(rule, Trainer) else 2
            self.data = self.data.part(trainer.global_rank, trainer.world_size, least)

    def __len__(self) -> int:
        return self.data.num_batches(self.split, self._size)

    def __iter__(self) -> Iterator[Batch]:
        if self.split != "train":
            return self.data.batches(self.split, self._size)
        epoch = self.module.trainer.current_epoch if self.module.trainer else 0
        order = torch.Generator(self.device).manual_seed(derived_seed(self.module.seed, 0, epoch))
        return self.data.batches("train", self._size, generator=order)

    @property
    def _size(self) -> int:
        return self.module.batch_size if self.split == "train" else self.module.eval_batch_size


def _as_batch(batch: Any) -> Batch:
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Sequence) and len(batch) == 2:
        return Batch(*batch)
    raise UserError(f"a batch is (x, y) or a localearn.data.Batch, not {type(batch).__name__}")


class _EndedByError(Callback):
    """Make the rule one process's again after an error, as `on_fit_end` does after a fit."""

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        pl_module.on_fit_end()
