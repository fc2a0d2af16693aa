"""What loggers write, as the tools that show it read it."""

import csv
import json
import signal
import sys
from pathlib import Path

import pytest
import torch

import localearn
from localearn import trust
from localearn.errors import UserError
from localearn.training.loggers import LOGGERS, CSVLogger, MLflowLogger, TensorBoardLogger, WandbLogger


def events_of(folder: Path) -> dict[str, list[int]]:
    """Return the steps of each tag, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return {tag: [event.step for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_tensorboard_shows_each_pass_once_over_stages_and_resumes(tiny, door, strike, killed):
    pytest.importorskip("tensorboard")
    # Killed in the second stage: the events of its first epoch are there, and its checkpoint too.
    strike(4 * 3 + 5, killed)
    with pytest.raises(killed):
        tiny("algo.schedule=greedy", "log=tensorboard", "out=run")
    strike(2, signal.SIGINT)
    assert door("resume=run").status == 130
    assert door("resume=run").status == 0
    shown = events_of(Path("run/tensorboard"))
    for tag in ("train_loss", "val_loss", "val_accuracy", "lr", "samples_per_s", "train_s"):
        assert shown[tag] == [1, 2, 3, 4, 5, 6], tag
    assert (shown["loss_1"], shown["loss_2"]) == ([1, 2, 3], [4, 5, 6])


def trained(**options):
    torch.manual_seed(0)
    data = localearn.load("digits", train_size=60)
    net = localearn.MLP(data.input_shape, data.classes, widths=(8,))
    return localearn.MonoForward(net).fit(data, epochs=3, **options)


class Halt(localearn.Callback):
    """Stops a run after its first epoch."""

    def epoch_ended(self, context):
        context.stop("enough")


def halted_and_resumed(**options):
    """Train one epoch, stopped by a callback, and the others as a resumed run."""
    trained(**options, callbacks=[Halt()])
    return trained(**options, resume=True)


def test_a_csv_file_has_a_line_for_each_epoch_and_a_column_for_each_figure(tmp_path, read):
    record = halted_and_resumed(out=tmp_path / "run", log="csv")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert [float(line["val_accuracy"]) for line in lines] == [line["val_accuracy"] for line in record.history]
    assert list(lines[0]) == list(read.history(tmp_path / "run")[0])


def test_a_column_that_another_phase_brings_is_empty_above(tmp_path, tiny):
    tiny("algo.schedule=greedy", "log=csv", "out=run")
    with Path("run/metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(bool(line["loss_1"]), bool(line["loss_2"])) for line in lines] == [(True, False)] * 3 + [(False, True)] * 3


def test_a_callback_writes_where_it_is_told(tmp_path):
    trained(callbacks=[CSVLogger(tmp_path / "new" / "figures.csv")])
    assert (tmp_path / "new" / "figures.csv").read_text().count("\n") == 4


@pytest.mark.slow  # MLflow takes seconds to import
def test_mlflow_has_the_parameters_the_figures_and_the_outcome_of_a_resumed_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    record = halted_and_resumed(out="runs/first", log="mlflow")
    trained(callbacks=[MLflowLogger("localearn", name="second")])
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("localearn")
    assert experiment
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == {"first", "second"}
    run = found["first"]
    assert run.info.status == "FINISHED"
    assert run.data.params["rule"] == "MonoForward"
    assert run.data.params["epochs"] == "3"
    assert run.data.metrics["final_test_accuracy"] == record.metric("accuracy")
    losses = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(found.step, found.value) for found in losses] == [
        (line["passes"], line["train_loss"]) for line in record.history
    ]


@pytest.mark.slow  # it starts a process
def test_weights_and_biases_writes_offline_and_sends_nothing(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    record = halted_and_resumed(out=tmp_path / "run", log="wandb")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2, "the run, and its resumed part"
    assert len({file.stem for file in files}) == 1, "under one name, so that they are uploaded as one run"
    written = b"".join(file.read_bytes() for file in files)  # records of names and of values as JSON
    for value in (*(line["train_loss"] for line in record.history), record.metric("accuracy")):
        assert json.dumps(value).encode() in written
    assert b"final_test_accuracy" in written


@pytest.mark.parametrize("log", ["tensorboard", "csv"])
def test_what_is_written_beside_a_run_needs_a_folder(log):
    with pytest.raises(UserError, match=f"log={log} needs a folder"):
        trained(log=log)


@pytest.mark.parametrize(
    ("logger", "module", "extra"),
    [
        (TensorBoardLogger, "torch.utils.tensorboard.writer", "tensorboard"),
        (MLflowLogger, "mlflow.tracking", "mlflow"),
        (WandbLogger, "wandb", "wandb"),
    ],
)
def test_a_package_that_is_not_there_is_named_with_the_line_that_installs_it(monkeypatch, logger, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf'pip install "localearn\[{extra}\]"'):
        logger()


def test_a_strangers_folder_does_not_choose_where_a_logger_writes():
    assert not any(trust.is_known(f"localearn.training.loggers.{logger.__name__}") for logger in LOGGERS.values())


def test_figures_are_those_without_a_logger(tmp_path):
    with_it, without = trained(out=tmp_path / "run", log="csv"), trained()
    losses = [[line["train_loss"] for line in record.history] for record in (with_it, without)]
    assert losses[0] == losses[1]


def test_every_logger_can_be_asked_for_by_name():
    from typing import get_args, get_type_hints

    from localearn.training import Settings

    assert {"none", *LOGGERS} == set(get_args(get_type_hints(Settings)["log"]))
