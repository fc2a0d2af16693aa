"""The reader of records: every schema so far, the committed records, and files that are none."""

import json
import math
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

import localearn
from localearn.errors import UserError
from localearn.records import BadRecordError, Record, parse_record, read_history, read_record
from localearn.records.reading import DEEPEST
from localearn.records.record import FORMER

RESULTS = Path(__file__).parents[2] / "results"
COMMITTED = sorted(RESULTS.rglob("run.json"))
NEW = ("schema", "metrics", "history", "lacking")


def minimal(**changes: Any) -> dict[str, Any]:
    """Return the least that is a record of schema 2."""
    made = {"schema": 2, "status": "completed", "algo": "backprop", "dataset": "digits", "net": "mlp", "seed": 3}
    return made | changes


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Record, Path]:
    """Return the record of a run as `fit` gave it, and its folder."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    data = localearn.load("digits", train_size=60)
    trainer = localearn.Backprop(localearn.MLP(data.input_shape, data.classes, widths=[8]))
    return trainer.fit(data, epochs=2, out=folder, energy=False, progress=False), folder


def test_what_a_run_leaves_is_read_back(trained):
    record, folder = trained
    for path in (folder, str(folder), folder / "run.json"):
        read = read_record(path)
        assert read.lacking == frozenset()
        for field in fields(Record):
            if field.name not in ("history", "config"):
                assert getattr(read, field.name) == getattr(record, field.name), field.name
    history, broken = read_history(folder)
    assert (history, broken) == (record.history, None)
    assert read_history(folder / "metrics.jsonl") == (history, None)
    again = json.loads(read.to_json())
    assert again == json.loads((folder / "run.json").read_text())


def test_the_committed_records_are_there():
    if not RESULTS.is_dir():
        pytest.skip("results/ is not part of this distribution")
    assert len(COMMITTED) >= 300


METRICS = {
    **dict.fromkeys(("loss", "rmse", "mae", "mse", "log_loss", "bits_per_character", "perplexity"), ("min", "value")),
    **dict.fromkeys(("r2", "psnr", "auc"), ("max", "value")),
    **dict.fromkeys(("accuracy", "token_accuracy"), ("max", "fraction")),
}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.parent.relative_to(RESULTS)))
def test_every_committed_record_is_read_as_it_stands(path):
    written = json.loads(path.read_text())
    record = read_record(path)
    for field in fields(Record):
        if field.name not in NEW and field.name in written:
            value = getattr(record, field.name)
            assert value == written[field.name], field.name
            assert type(value) is type(written[field.name]), field.name
    assert record.lacking == {field.name for field in fields(Record)} - written.keys() - set(NEW)
    for former, (metric, split) in FORMER.items():
        assert getattr(record, former) == record.metric(metric, split) == written[former]
    for name, figures in record.metrics.items():
        assert (figures["direction"], figures["unit"]) == METRICS[name]


@pytest.mark.parametrize("top", sorted({path.relative_to(RESULTS).parts[0] for path in COMMITTED}))
def test_every_committed_history_is_read_as_it_stands(top):
    for path in sorted((RESULTS / top).rglob("metrics.jsonl")):
        history, broken = read_history(path)
        assert broken is None
        assert history == [json.loads(line) for line in path.read_text().splitlines()]


def test_schema_1_with_metrics_keeps_them_and_gains_the_loss():
    """The last records of schema 1 had the task's metrics, without the loss."""
    rmse = {"direction": "min", "unit": "value", "val": 52.0, "test": 55.0}
    old = minimal(schema=1, metrics={"rmse": rmse}, test_accuracy=None, val_accuracy=None, test_loss=0.5)
    record = parse_record(old)
    loss = {"direction": "min", "unit": "value", "val": None, "test": 0.5}
    assert record.metrics == {"rmse": rmse, "loss": loss}
    assert record.test_accuracy is None and record.test_loss == 0.5
    assert record.schema == 2


def test_fields_of_schema_1_mean_nothing_in_schema_2():
    """They are written there for one release more, for others' scripts; a record says each thing once."""
    record = parse_record(minimal(test_accuracy=0.5))
    assert record.metrics == {} and record.test_accuracy is None


def test_what_a_file_lacks_is_told_and_has_its_default():
    record = parse_record(minimal(train_s=None, precision=None, protocol=None))
    assert {"train_s", "precision", "ranks", "rule"} <= record.lacking
    assert not {"protocol", "error", "peak_memory_bytes", "seed"} & record.lacking
    assert (record.train_s, record.precision, record.ranks) == (0.0, "fp32", 1)


def test_a_metric_of_no_split_and_of_no_name_is_none():
    loss = {"direction": "min", "unit": "value", "val": 1.5}
    record = parse_record(minimal(metrics={"loss": loss}))
    assert record.metric("loss", "val") == 1.5
    assert record.metric("loss") is None and record.metric("accuracy") is None


def nested(depth: int) -> dict[str, Any]:
    inner: Any = 0
    for _ in range(depth):
        inner = [inner]
    return {"a": inner}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 3}, "schema 3 is unknown here"),
        ({"schema": True}, "schema True is unknown here"),
        ({"schema": [2]}, r"schema \[2\] is unknown here"),
        ({"status": None}, "status is missing"),
        ({"seed": 2.0}, r"seed is 2\.0, where a whole number belongs"),
        ({"seed": 2**65}, "seed is a number of impossible size"),
        ({"epochs": "3"}, "epochs is '3', where a whole number belongs"),
        ({"train_s": "1"}, "train_s is '1', where a number belongs"),
        ({"train_s": 10**400}, "train_s is a number of impossible size"),
        ({"deterministic": 1}, "deterministic is 1, where true or false belongs"),
        ({"rule": 3}, "rule is 3, where a string belongs"),
        ({"config": [1]}, r"config is \[1\], where an object belongs"),
        ({"seams": [1]}, "seams is no list of objects"),
        ({"memory": {"process_bytes": "x"}}, "memory.process_bytes is 'x'"),
        ({"metrics": []}, r"metrics is \[\], where an object belongs"),
        ({"metrics": {"mae": 3}}, "metrics.mae is 3, where an object belongs"),
        ({"metrics": {"mae": {}}}, "metrics.mae.direction is missing"),
        ({"metrics": {"mae": {"direction": "up"}}}, "metrics.mae.direction is 'up', not one of max, min"),
        (
            {"metrics": {"mae": {"direction": "min", "unit": "m"}}},
            "metrics.mae.unit is 'm', not one of fraction, value",
        ),
        ({"metrics": {"mae": {"direction": "min", "unit": "value", "val": "x"}}}, "metrics.mae.val is 'x'"),
        ({"energy": {"label": "guessed"}}, "energy.label is 'guessed'"),
        ({"energy": {"parts": {"gpu": {"windows": {"train": 3}}}}}, "energy.parts.gpu.windows.train is 3"),
        ({"co2e": {"label": 3}}, "co2e.label is 3"),
        ({"started": "soon"}, "started is 'soon', where an ISO date belongs"),
        ({"config": nested(DEEPEST)}, "nested more than 64 levels deep"),
        ({"config": nested(900)}, "nested more than 64 levels deep"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_file(tmp_path, change, said):
    with pytest.raises(BadRecordError, match=said):
        parse_record(minimal(**change))
    (tmp_path / "run.json").write_text(json.dumps(minimal(**change)))
    with pytest.raises(UserError, match=rf"run\.json: .*{said}"):
        read_record(tmp_path)


def test_a_message_is_of_a_bounded_length(tmp_path):
    with pytest.raises(BadRecordError, match=r"^metrics\.x+\.\.\.$") as told:
        parse_record(minimal(metrics={"x" * 10**6: {}}))
    assert len(str(told.value)) == 300


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "truncated or not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not UTF-8 text"),
        (b"[" * 100_000, "nesting that no record has"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path, content, said):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"run\.json .*{said}"):
        read_record(tmp_path)


def test_a_folder_without_a_record_is_named(tmp_path):
    with pytest.raises(UserError, match=r"run\.json cannot be read: No such file"):
        read_record(tmp_path)


ODD = (None, True, -1, 2**70, 1e308, math.nan, "x", "\u202e", [], [1], [{}], {}, {"a": 1}, {"label": "x"}, nested(70))


def test_no_damage_to_a_record_is_a_traceback(trained):
    """Values of every kind, put in any place of a record of either schema, are read or refused in one line."""
    text = (trained[1] / "run.json").read_text()
    draw = random.Random(0)
    refused = 0
    for number in range(3000):
        values = json.loads(text)
        values["schema"] = 1 + number % 2
        for _ in range(draw.randint(1, 3)):
            place = values
            while True:
                key = draw.choice(list(place))
                if not (isinstance(place[key], dict) and place[key] and draw.random() < 0.7):
                    break
                place = place[key]
            place[key] = draw.choice(ODD)
        try:
            record = parse_record(values)
        except BadRecordError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert json.loads(record.to_json(), parse_constant=pytest.fail)["schema"] == 2
        assert str(record).startswith("Record(") and record.metric("accuracy") in (None, record.test_accuracy)
    assert 500 < refused < 2900


@pytest.mark.parametrize(
    ("line", "good"),
    [
        (b'{"epoch": 3, "val_acc', 2),
        (b"[]", 2),
        (b'{"val_accuracy": "x"}', 2),
        (b'{"train_s": []}', 2),
        (b'{"val_accuracy": "\xff"}', 2),
        (b"[" * 100_000, 2),
        (json.dumps(nested(70)).encode(), 2),
        (b'{"val_loss": NaN, "off_1": "of a rule"}', 3),
    ],
)
def test_a_history_ends_before_its_first_broken_line(tmp_path, line, good):
    lines = [b'{"epoch": 1, "val_loss": 1.0}', b'{"epoch": 2, "val_loss": 0.5, "train_j": null}', line]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    history, broken = read_history(tmp_path)
    assert len(history) == good and broken == (3 if good == 2 else None)
    assert history[1] == {"epoch": 2, "val_loss": 0.5, "train_j": None}


def test_a_history_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read"):
        read_history(tmp_path)


def test_a_run_of_schema_1_is_trained_on_to_the_same_bits(tmp_path):
    """Its checkpoint is as it was, and its run.json is replaced by one of schema 2."""
    data = localearn.load("digits", train_size=60)

    def trained(folder: Path, epochs: int, resume: bool = False) -> tuple[Record, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        trainer = localearn.MonoForward(localearn.MLP(data.input_shape, data.classes, widths=[8]))
        record = trainer.fit(data, epochs=epochs, out=folder, resume=resume, energy=False, progress=False)
        return record, trainer.net.state_dict()

    whole, weights = trained(tmp_path / "whole", 3)
    trained(tmp_path / "part", 2)
    path = tmp_path / "part" / "run.json"
    old = json.loads(path.read_text())
    del old["metrics"], old["parallel"], old["ranks"]
    path.write_text(json.dumps(old | {"schema": 1}))
    assert read_record(path).val_accuracy == old["val_accuracy"]
    longer, same = trained(tmp_path / "part", 3, resume=True)
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert longer.metrics == whole.metrics
    assert read_record(path).metrics == whole.metrics and read_record(path).lacking == frozenset()


@pytest.mark.parametrize("name", ["algo", "dataset", "net"])
def test_a_name_is_of_a_bounded_length(name):
    values = json.loads(COMMITTED[0].read_text())
    assert parse_record(values | {name: "x" * 200})
    with pytest.raises(BadRecordError, match=f"{name} has more than 200 characters"):
        parse_record(values | {name: "x" * 100_000})
