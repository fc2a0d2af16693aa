"""What the meter records: labels, resumed runs, carbon, and the form of it all."""

import json
from typing import Any

import pytest
import torch

from localearn.energy import Meter
from localearn.energy.nvml import NvmlCounter
from localearn.errors import UserError
from localearn.testing.energy import FakeCard, FakeClock, FakeCounter, FakeNvml, Script

IDLE_THEN_BUSY = Script([(0.0, 60.0), (1.0, 60.0), (1.0001, 300.0)])


def card_meter(clock: FakeClock, card: FakeCard) -> Meter:
    """Return an open meter on a scripted card, as a run on a GPU has it, and an estimated CPU beside it."""
    counter = NvmlCounter(card.uuid, nvml=FakeNvml(clock, card), clock=clock.clock)
    # The headline of a device that is no CPU is the card; here nothing runs on it.
    meter = Meter("mps", sources=[counter, FakeCounter(clock)], clock=clock.clock, synchronize=lambda: None)
    meter.open()
    return meter


def test_without_sources_only_seconds_are_kept():
    clock = FakeClock()
    meter = Meter(sources="none", country="POL", clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(2.0)
    meter.close()
    report = meter.report()
    energy = report["energy"]
    assert energy["train_j"] is energy["train_net_j"] is energy["source"] is energy["part"] is None
    assert {part["label"] for part in energy["parts"].values()} == {"absent"}
    assert energy["parts"]["cpu"]["windows"]["train"]["energy_j"] is None
    assert energy["durations_s"] == {"train": 2.0}
    assert report["co2e_kg"] is None
    assert report["co2e"]["label"] == "absent"


def test_parts_are_never_added_to_each_other():
    clock = FakeClock()
    sources = [FakeCounter(clock, "cpu", "measured", 50.0), FakeCounter(clock, "dram", "estimated", 10.0)]
    meter = Meter(sources=sources, clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(2.0)
    energy = meter.report()["energy"]
    assert energy["train_j"] == pytest.approx(100.0)
    assert energy["label"] == "measured"
    assert energy["parts"]["dram"]["windows"]["train"]["energy_j"] == pytest.approx(20.0)
    assert energy["parts"]["gpu"]["windows"]["train"]["energy_j"] is None


def test_the_next_source_stands_in_and_the_note_says_why():
    clock = FakeClock()
    sources = [FakeCounter(clock, "cpu", "measured", absent="no counter here"), FakeCounter(clock, "cpu", "estimated")]
    meter = Meter(sources=sources, clock=clock.clock)
    meter.open()
    cpu = meter.report()["energy"]["parts"]["cpu"]
    assert cpu["label"] == "estimated"
    assert cpu["note"] == "steady; no counter here"


def test_a_resumed_run_adds_what_went_before():
    clock = FakeClock()
    first = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY))
    with first.window("train"):
        clock.advance(10.0)
    state = json.loads(json.dumps(first.state()))
    second_clock = FakeClock()
    second = card_meter(second_clock, FakeCard("GPU-a", IDLE_THEN_BUSY))
    second.add_earlier(state)
    with second.window("train"):
        second_clock.advance(5.0)
    energy = second.report()["energy"]
    assert energy["train_j"] == pytest.approx(4500.0, rel=0.005)
    assert second.energy_j("train") == energy["train_j"]
    assert second.duration_s("train") == pytest.approx(15.0)
    assert energy["train_net_j"] == pytest.approx(4500.0 - 60.0 * 15.0, rel=0.01)
    (seam,) = energy["seams"]
    assert seam["earlier_s"] == pytest.approx({"train": 10.0})
    assert seam["earlier_train_j"] == pytest.approx(3000.0, rel=0.005)
    third = card_meter(FakeClock(), FakeCard("GPU-a", IDLE_THEN_BUSY))
    third.add_earlier(second.state())
    assert third.report()["energy"]["train_j"] == energy["train_j"]
    assert len(third.report()["energy"]["seams"]) == 2


@pytest.mark.parametrize("labels", [("measured", "estimated"), ("estimated", None), (None, "estimated")])
def test_a_resumed_run_never_adds_joules_of_another_label(labels: tuple[Any, Any]):
    clock = FakeClock()
    meters = []
    for label in labels:
        sources = [FakeCounter(clock, label=label)] if label else "none"
        meter = Meter(sources=sources, clock=clock.clock)
        meter.open()
        if meters:
            meter.add_earlier(meters[0].state())
        with meter.window("train"):
            clock.advance(2.0)
        meters.append(meter)
    energy = meters[1].report()["energy"]
    assert energy["train_j"] is None
    assert energy["durations_s"] == {"train": 4.0}
    assert energy["flags"] == (["label_changed"] if labels[1] else [])


def test_a_checkpoint_takes_the_state(tmp_path):
    clock = FakeClock()
    meter = card_meter(clock, FakeCard("GPU-a", IDLE_THEN_BUSY))
    with meter.window("train"):
        clock.advance(2.0)
    torch.save({"energy": meter.state()}, tmp_path / "checkpoint")
    assert torch.load(tmp_path / "checkpoint", weights_only=True)["energy"] == meter.state()


def test_carbon_is_an_estimate_of_the_training_alone():
    clock = FakeClock()
    meter = Meter(country="pol", sources=[FakeCounter(clock, label="measured", power_w=3600.0)], clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(1000.0)
    with meter.window("eval"):
        clock.advance(500.0)
    report = meter.report()
    assert report["co2e"]["label"] == "estimated"
    assert report["co2e"]["country"] == "POL"
    assert report["co2e_kg"] == pytest.approx(report["co2e"]["intensity_kg_per_kwh"])


def test_no_country_no_carbon_and_the_way_to_it():
    clock = FakeClock()
    meter = Meter(sources=[FakeCounter(clock)], clock=clock.clock)
    meter.open()
    with meter.window("train"):
        clock.advance(1.0)
    report = meter.report()
    assert report["energy"]["train_j"] == pytest.approx(10.0)
    assert report["co2e_kg"] is None
    assert "energy.country=POL" in report["co2e"]["note"]


def test_a_wrong_country_fails_before_anything_runs():
    with pytest.raises(UserError, match="did you mean 'POL'"):
        Meter(country="POLAND")


def test_the_report_is_json_and_of_the_agreed_form():
    """A machine as it is: what is measured differs between machines, the form of the record does not."""
    meter = Meter("cpu", country="POL", idle_s=0.05)
    meter.open()
    with meter.window("setup"):
        pass
    with meter.window("train"):
        sum(range(300_000))
    meter.close()
    report = json.loads(json.dumps(meter.report(), allow_nan=False))
    assert set(report) == {"energy", "co2e_kg", "co2e"}
    assert set(report["co2e"]) == {"label", "country", "intensity_kg_per_kwh", "note"}
    energy = report["energy"]
    assert set(energy) == {
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
    assert set(energy["durations_s"]) == {"setup", "train"}
    assert set(energy["parts"]) == {"gpu", "cpu", "dram"}
    for part in energy["parts"].values():
        assert set(part) == {"label", "source", "note", "idle_w", "windows"}
        assert set(part["windows"]) == {"setup", "train"}
        for window in part["windows"].values():
            assert {"energy_j", "net_j", "duration_s", "uncertainty_j", "flags"} <= set(window)
            assert (window["energy_j"] is None) == (part["label"] == "absent")
    assert energy["parts"]["gpu"]["label"] == "absent"
    assert energy["label"] in ("measured", "estimated")
    assert energy["train_j"] > 0
    assert report["co2e_kg"] > 0
