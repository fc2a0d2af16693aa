"""Loggers: callbacks that write a run's figures to TensorBoard, CSV, MLflow or Weights & Biases.

    from localearn.training.loggers import CSVLogger, MLflowLogger

    localearn.MonoForward(net).fit(data, callbacks=[CSVLogger("figures.csv"), MLflowLogger(experiment="digits")])

Each writes every epoch's line of metrics over the number of passes, and at the end the figures of the run; of several
ranks only rank 0 writes. A resumed run continues its log. `fit(log="mlflow")`, and `log=mlflow` of `localearn.run`, use
a logger with its defaults.
"""

import csv
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from localearn.errors import UserError
from localearn.extras import optional
from localearn.records import Record
from localearn.records.folder import RunFolder
from localearn.training.callbacks import Callback, Context


class _Logger(Callback):
    """Shared base of the loggers: figures, parameters and the folder of a run."""

    _log: str  # its name as `log=`

    def __init__(self, folder: str | Path | None = None):
        self._folder = None if folder is None else Path(folder).expanduser()

    def _place(self, context: Context, name: str) -> Path:
        """Return the folder of the constructor, or one of this name in the run's folder."""
        if self._folder is not None:
            return self._folder
        return _require_folder(self._log, context.folder) / name


class TensorBoardLogger(_Logger):
    """Write each epoch's figures as TensorBoard events, over passes: `tensorboard --logdir runs`.

    Args:
        folder: The folder of the event files; by default `tensorboard` in the run's folder.

    Raises:
        UserError: Where the package is not installed, and, when the run starts, where there is no folder.

    """

    _log = "tensorboard"

    def __init__(self, folder: str | Path | None = None):
        super().__init__(folder)
        written = optional("torch.utils.tensorboard.writer", "log=tensorboard", "tensorboard")
        self._writer_class, self._writer = written.SummaryWriter, None

    def run_started(self, context: Context) -> None:
        """Check that there is a folder to write to."""
        if not context.rank:
            self._place(context, "tensorboard")

    def epoch_ended(self, context: Context) -> None:
        """Write the epoch's figures at its number of passes."""
        if context.rank:
            return
        if self._writer is None:
            self._writer = self._writer_class(str(self._place(context, "tensorboard")))
        for name, value in _figures(context.line):
            self._writer.add_scalar(name, value, int(context.line["passes"]))

    def run_ended(self, context: Context) -> None:
        """Flush and close the events file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


TensorBoard = TensorBoardLogger  # the former name, deprecated: removed in the next release


class CSVLogger(_Logger):
    """Write each epoch's figures as a line of a CSV file, a column for each figure, for a spreadsheet or pandas.

    The file is replaced atomically at each epoch, so that a reader never sees half a line. The column of a figure that
    a later phase adds is empty in the lines above.

    Args:
        path: The file; by default `metrics.csv` in the run's folder.

    Raises:
        UserError: When the run starts, where there is no folder; and where the file cannot be written.

    """

    _log = "csv"

    def __init__(self, path: str | Path | None = None):
        super().__init__(path)

    def run_started(self, context: Context) -> None:
        """Check that there is a folder to write to."""
        if not context.rank:
            self._file(context).parent.mkdir(parents=True, exist_ok=True)

    def epoch_ended(self, context: Context) -> None:
        """Write the file with the epoch's line."""
        if context.rank:
            return
        columns = list(dict.fromkeys(name for line in context.history for name in line))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(context.history)
        file = self._file(context)
        RunFolder(file.parent).write_text(file, text.getvalue())

    def _file(self, context: Context) -> Path:
        return self._folder or _require_folder(self._log, context.folder) / "metrics.csv"


class MLflowLogger(_Logger):
    """Write a run's parameters, figures and outcome to MLflow.

    `MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri mlruns` shows the file store that it writes by default;
    for a database or a server `mlflow ui` is enough.

    Args:
        experiment: The name of the MLflow experiment.
        tracking_uri: The store, such as "sqlite:///mlflow.db" or a server's address; by default MLFLOW_TRACKING_URI,
            and where that is not set the file store `mlruns` in the current folder.
        name: The name of the run; by default that of the run's folder.

    Raises:
        UserError: Where the package is not installed.

    """

    _log = "mlflow"

    def __init__(self, experiment: str = "localearn", tracking_uri: str | None = None, name: str | None = None):
        super().__init__()
        self._client_class, self._client = optional("mlflow.tracking", "log=mlflow", "mlflow").MlflowClient, None
        self._experiment, self._uri, self._name, self._run = experiment, tracking_uri, name, ""

    def run_started(self, context: Context) -> None:
        """Start an MLflow run, or continue the one that the run's folder names."""
        if context.rank:
            return
        self._client = self._client_class(_tracking_store(self._uri))
        found = self._client.get_experiment_by_name(self._experiment)
        number = found.experiment_id if found else self._client.create_experiment(self._experiment)
        stored = _stored_id(context, "mlflow")
        if stored is not None:
            self._run = stored
            self._client.set_terminated(stored, "RUNNING")
            return
        name = self._name or (context.folder.name if context.folder else type(context.trainer).__name__)
        self._run = self._client.create_run(number, run_name=name).info.run_id
        _store_id(context, "mlflow", self._run)
        for key, value in _parameters(context).items():
            self._client.log_param(self._run, key, value)

    def epoch_ended(self, context: Context) -> None:
        """Write the epoch's figures at its number of passes."""
        if self._client is not None:
            for name, value in _figures(context.line):
                self._client.log_metric(self._run, name, value, step=int(context.line["passes"]))

    def run_ended(self, context: Context) -> None:
        """Write the run's figures and its status."""
        if self._client is None or not self._run:
            return
        record = context.record
        for name, value in _final_figures(record):
            self._client.log_metric(self._run, name, value)
        status = {"completed": "FINISHED", "interrupted": "KILLED", "stopped": "FINISHED"}
        self._client.set_terminated(self._run, status.get(record.status if record else "failed", "FAILED"))


class WandbLogger(_Logger):
    """Write a run's parameters, figures and outcome for Weights & Biases, offline by default.

    `wandb sync DIR/wandb/offline-run-...` uploads an offline run. Only this callback's figures are logged, and neither
    console output, nor code, nor system metrics.

    Args:
        project: The Weights & Biases project.
        mode: "offline", which writes files only, or "online", which needs an account.
        name: The name of the run; by default that of the run's folder.
        folder: The folder of the files; by default the run's folder, without one the current folder.

    Raises:
        UserError: Where the package is not installed, and for another mode.

    """

    _log = "wandb"

    def __init__(
        self,
        project: str = "localearn",
        mode: Literal["offline", "online"] = "offline",
        name: str | None = None,
        folder: str | Path | None = None,
    ):
        super().__init__(folder)
        wandb = optional("wandb", "log=wandb", "wandb")
        if mode not in ("offline", "online"):
            raise UserError(f"mode must be offline or online, not {mode!r}")
        self._wandb, self._run = wandb, None
        self._project, self._mode, self._name = project, mode, name

    def run_started(self, context: Context) -> None:
        """Start a Weights & Biases run, or continue the one that the run's folder names."""
        if context.rank:
            return
        folder = self._folder or context.folder or Path()
        folder.mkdir(parents=True, exist_ok=True)
        settings = self._wandb.Settings(
            console="off", silent=True, disable_code=True, disable_git=True, save_code=False, x_disable_stats=True
        )
        self._run = self._wandb.init(
            project=self._project,
            mode=self._mode,
            name=self._name or (context.folder.name if context.folder else None),
            dir=str(folder),
            id=_stored_id(context, "wandb"),
            resume="allow",
            config=_parameters(context),
            settings=settings,
        )
        _store_id(context, "wandb", self._run.id)

    def epoch_ended(self, context: Context) -> None:
        """Write the epoch's figures at its number of passes."""
        if self._run is not None:
            self._run.log(dict(_figures(context.line)), step=int(context.line["passes"]))

    def run_ended(self, context: Context) -> None:
        """Write the run's figures, and close it."""
        if self._run is None:
            return
        self._run.summary.update(dict(_final_figures(context.record)))
        done = context.record is not None and context.record.status in ("completed", "stopped")
        self._run.finish(exit_code=0 if done else 1)
        self._run = None


LOGGERS = {"tensorboard": TensorBoardLogger, "csv": CSVLogger, "mlflow": MLflowLogger, "wandb": WandbLogger}


def make_logger(log: str, folder: Path | None) -> Callback:
    """Return the logger of `log=`, with its defaults.

    Args:
        log: A key of `LOGGERS`.
        folder: The run's folder, None where nothing is written.

    Raises:
        UserError: Where it needs a folder or a package that is missing.

    """
    if log in ("tensorboard", "csv"):
        _require_folder(log, folder)
    return LOGGERS[log]()


def _require_folder(log: str, folder: Path | None) -> Path:
    if folder is None:
        raise UserError(f"log={log} needs a folder to write to; give out=DIR")
    return folder


def _tracking_store(uri: str | None) -> str | None:
    """Return where MLflow writes: to `uri`, to its environment's store (None), or to the file store `mlruns`."""
    if uri is not None or os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which MLflow 3.17 and later require
    return Path("mlruns").resolve().as_uri()


def _figures(line: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of an epoch's line, except the number of passes, which is the step."""
    for name, value in line.items():
        if isinstance(value, float) and name != "passes":
            yield name, value


def _parameters(context: Context) -> dict[str, Any]:
    """Return the parameters that identify a run: the rule, the net and the options."""
    trainer = context.trainer
    own = {"rule": type(trainer).__name__, "net": type(trainer.net).__name__, "dataset": context.data.name}
    plain = {name: value for name, value in context.settings.plain().items() if name not in ("out", "log", "progress")}
    return own | {"parameters": sum(p.numel() for p in trainer.parameters())} | plain


def _final_figures(record: Record | None) -> Iterator[tuple[str, float]]:
    """Yield the figures of the run: every metric on each split, seconds, joules where they were measured."""
    if record is None:
        return
    for name, figures in record.metrics.items():
        for split in ("val", "test"):
            value = figures[split]
            if value is not None and math.isfinite(value):
                yield f"final_{split}_{name}", value
    yield "final_train_s", record.train_s
    joules = record.energy.get("train_j")
    if joules is not None:
        yield f"final_train_j_{record.energy['label']}", joules


def _stored_id(context: Context, log: str) -> str | None:
    """Return the identifier of this folder's run in a log, where the run is resumed."""
    position = context.position
    resumed = position.stage or position.epoch or position.batch
    file = None if context.folder is None else context.folder / f".{log}-run"
    return file.read_text(encoding="utf-8").strip() if resumed and file and file.is_file() else None


def _store_id(context: Context, log: str, name: str) -> None:
    if context.folder is not None:
        RunFolder(context.folder).write_text(context.folder / f".{log}-run", name + "\n")
