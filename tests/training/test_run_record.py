"""What a run leaves behind, and that it can be read again."""

import json
import math
from pathlib import Path

import pytest
import torch

import localearn
from localearn.energy import Meter, metered_by
from localearn.errors import UserError
from localearn.records import Figures
from localearn.testing.energy import FakeClock, FakeCounter
from localearn.training import Callback, Context, Record
from localearn.training.callbacks import attached
from localearn.training.loading import load_net

# What others read, name by name; a field that goes, or changes its type, breaks reports of years ago.
NUMBER, MAYBE = (int, float), (int, float, type(None))
SCHEMA = {
    "status": str,
    "schema": int,
    "algo": str,
    "rule": str,
    "dataset": str,
    "net": str,
    "seed": int,
    "protocol": (str, type(None)),
    "epochs": int,
    "passes": NUMBER,
    "stages": int,
    "train_samples": int,
    "val_samples": int,
    "test_samples": int,
    "test_accuracy": MAYBE,
    "test_loss": MAYBE,
    "val_accuracy": MAYBE,
    "metrics": dict,
    "best_epoch": (int, type(None)),
    "train_s": NUMBER,
    "eval_s": NUMBER,
    "setup_s": NUMBER,
    "samples_per_s": MAYBE,
    "peak_memory_bytes": (int, type(None)),
    "memory": dict,
    "parameters": int,
    "energy": dict,
    "co2e_kg": MAYBE,
    "co2e": dict,
    "device": dict,
    "precision": str,
    "batch_size": int,
    "capture": str,
    "deterministic": bool,
    "parallel": str,
    "ranks": int,
    "versions": dict,
    "data_fingerprint": str,
    "started": str,
    "finished": str,
    "seams": list,
    "config": dict,
    "error": (str, type(None)),
    "diagnostics": dict,
}
ENERGY = {
    "train_j",
    "train_net_j",
    "source",
    "label",
    "part",
    "train_uncertainty_j",
    "parts",
    "durations_s",
    "flags",
    "seams",
    "conditions",
}
LINE = {
    "stage",
    "epoch",
    "passes",
    "train_loss",
    "val_loss",
    "val_accuracy",
    "lr",
    "train_s",
    "train_j",
    "samples_per_s",
}


def test_the_record_has_all_that_others_read(tiny, read, wall_energy):
    assert tiny("energy.enabled=true", "energy.country=POL", "protocol=matched", "out=run").status == 0
    record = read.record("run")
    assert set(record) == set(SCHEMA) == set(Record.names())
    for name, kind in SCHEMA.items():
        assert isinstance(record[name], kind), name
    assert record["schema"] == 2
    assert set(record["metrics"]) == {"loss", "accuracy"}
    accuracy, loss = record["metrics"]["accuracy"], record["metrics"]["loss"]
    assert (accuracy["direction"], accuracy["unit"]) == ("max", "fraction")
    assert (loss["direction"], loss["unit"]) == ("min", "value")
    assert record["test_accuracy"] == accuracy["test"] and record["val_accuracy"] == accuracy["val"]
    assert record["test_loss"] == loss["test"] > 0 and loss["val"] > 0
    assert set(record["energy"]) == ENERGY
    assert record["energy"]["train_j"] == pytest.approx(100 * record["train_s"], rel=0.05)
    assert (record["energy"]["label"], record["energy"]["part"]) == ("measured", "cpu")
    assert record["energy"]["parts"]["gpu"]["label"] == "absent"
    assert record["energy"]["parts"]["gpu"]["windows"]["train"]["energy_j"] is None
    assert record["energy"]["durations_s"]["train"] == record["train_s"]
    assert record["co2e"]["label"] == "estimated"
    assert record["co2e_kg"] > 0
    assert (record["status"], record["error"], record["protocol"]) == ("completed", None, "matched")
    assert (record["train_samples"], record["val_samples"], record["test_samples"]) == (60, 144, 359)
    assert record["parameters"] == sum((64 * 12 + 12, 12 * 10 + 10, 10 * 10 + 10, 12 * 10))
    assert record["passes"] == record["epochs"] == 3
    assert record["samples_per_s"] == pytest.approx(3 * 60 / record["train_s"])
    assert 0 < record["test_accuracy"] < 1
    assert record["peak_memory_bytes"] in record["memory"].values()
    assert record["config"]["out"] == "run"
    choices = record["config"]["choices"]
    assert "epochs=3" in choices.pop("overrides"), "what was typed"
    assert choices == {"algo": "mono_forward", "dataset": "digits", "net": "mlp_2x256", "recipe": "dense"}
    assert record["started"] <= record["finished"]
    assert {"localearn", "torch", "numpy", "python"} - set(record["versions"]) <= {"localearn"}  # if it is installed


def test_the_history_has_a_line_an_epoch(tiny, read):
    assert tiny("algo.schedule=greedy", "out=run").status == 0
    lines = read.history("run")
    assert [(line["stage"], line["epoch"], line["passes"]) for line in lines] == [
        (s, e, 3 * s + e) for s in range(2) for e in (1, 2, 3)
    ]
    assert all(set(line) >= LINE for line in lines)
    assert all(line["train_j"] is None for line in lines)


class Kept(Callback):
    """Keeps the context of a run."""

    def run_ended(self, context: Context) -> None:
        self.context = context


def test_the_net_predicts_without_its_trainer_as_with_it(tiny):
    kept = Kept()
    with attached(kept):
        assert tiny("net.norm=batch", "net.dropout=0.3", "out=run").status == 0
    trainer, data = kept.context.trainer, kept.context.data
    net = load_net("run")
    assert not net.training
    batch = next(iter(data.batches("test", 400)))
    trainer.eval()
    with torch.no_grad():
        assert torch.equal(net(batch.x), trainer.predict(batch.x))


def test_a_net_that_cannot_be_loaded_is_told(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    with pytest.raises(UserError, match="is not there"):
        load_net(tmp_path)
    assert tiny("epochs=1", "out=run").status == 0
    net = Path("run/net.safetensors")
    weights = load_file(net)
    for metadata, told in (
        (None, "does not say how its net was built"),
        ({"_target_": "os.getcwd"}, "trust=os.getcwd"),
        ({"_target_": "localearn.MLP", "widths": {"_target_": "os.getcwd"}}, r"net\.widths\._target_ is 'os.getcwd'"),
        ({"_target_": "localearn.load"}, "built by more than a localearn.Net"),
        ({"_target_": "localearn.MLP", "widths": {"_target_": "localearn.CNN"}}, "built by more than a localearn.Net"),
    ):
        described = {"localearn": json.dumps({"input_shape": [1, 8, 8], "classes": 10, "net": metadata})}
        save_file(weights, net, metadata=described)
        with pytest.raises(UserError, match=told):
            load_net("run")
    net.write_bytes(net.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_net("run")


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tiny, read):
    # The first epoch is good; the rate of the second is ten to the thirtieth.
    jump = ["+schedule.milestones=[1]", "+schedule.gamma=1e30", "~schedule.factor"]
    target = "schedule._target_=torch.optim.lr_scheduler.MultiStepLR"
    ended = tiny("algo=backprop", "optim=sgd", target, *jump, "out=run")
    assert ended.status == 3
    assert ended.err.startswith("diverged: the loss was not finite in epoch 2")
    assert "the last good checkpoint and the record are in run" in ended.err
    record = read.record("run")
    assert (record["status"], record["epochs"], record["test_accuracy"]) == ("diverged", 1, None)
    assert len(read.history("run")) == 1
    state = torch.load("run/checkpoint.pt", weights_only=True)
    assert state["position"]["epoch"] == 1
    assert all(value.isfinite().all() for value in state["trainer"].values())
    assert not Path("run/net.safetensors").exists()


def test_a_run_that_diverges_at_once_claims_no_checkpoint(tiny, read):
    ended = tiny("algo=backprop", "optim=sgd", "optim.lr=1e30", "out=run")
    assert ended.status == 3
    assert "no epoch was good; the record is in run" in ended.err
    assert not Path("run/checkpoint.pt").exists()
    record = read.record("run")
    assert (record["status"], record["epochs"], record["val_accuracy"]) == ("diverged", 0, None)
    assert tiny("out=run").status == 2, "its record is not overwritten"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_has_no_number_that_is_none(number):
    loss = Figures(direction="min", unit="value", val=1.0, test=number)
    record = Record(status="completed", diagnostics={"angle": [number, 1.0]}, metrics={"loss": loss})
    values = json.loads(record.to_json(), parse_constant=pytest.fail)
    assert values["diagnostics"] == {"angle": [None, 1.0]}
    assert values["metrics"]["loss"] == {"direction": "min", "unit": "value", "val": 1.0, "test": None}
    assert values["test_loss"] is None


def test_a_record_reads_in_a_line():
    record = Record(
        status="completed",
        algo="backprop",
        metrics={"accuracy": Figures(direction="max", unit="fraction", val=None, test=0.98765)},
        energy={"train_j": 12.0, "label": "measured"},
    )
    assert "test_accuracy=0.9877" in str(record)
    assert "train_j=12 (measured)" in str(record)
    assert "\n" not in str(record)


def test_a_meter_that_breaks_leaves_no_folder(tiny):
    broken = FakeCounter(FakeClock(), error=OSError("the source broke"))
    with metered_by(lambda *_: Meter(sources=[broken])), pytest.raises(OSError, match="the source broke"):
        tiny("out=run")
    assert not Path("run").exists()


def test_a_record_of_a_run_from_python_has_its_settings(tmp_path):
    data = localearn.load("digits", train_size=40)
    trainer = localearn.Backprop(localearn.MLP(data.input_shape, data.classes, widths=[8]))
    record = trainer.fit(data, epochs=1, out=str(tmp_path / "run"))
    assert record.config["epochs"] == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"] == record.config
    assert "epochs: 1\n" in (tmp_path / "run" / "config.yaml").read_text()
