"""What several processes that train together have spent: a sum, in which nothing is counted twice."""

import itertools
import json
import os
from typing import Any

import pytest

from localearn.energy import Meter
from localearn.energy.nvml import NvmlCounter
from localearn.energy.rapl import RaplCounter
from localearn.testing.energy import FakeCard, FakeClock, FakeCounter, FakeNvml, Script

IDLE_THEN_BUSY = Script([(0.0, 60.0), (1.0, 60.0), (1.0001, 300.0)])


class Process:
    """A rank's meter: a card, or a machine's CPU, and its own clock."""

    def __init__(self, *counters, clock=None, device="mps"):
        self.clock = clock or FakeClock()
        sources = [counter(self.clock) for counter in counters]
        self.meter = Meter(device, sources=sources, clock=self.clock.clock, synchronize=lambda: None)
        self.meter.open()

    def train(self, seconds):
        with self.meter.window("train"):
            self.clock.advance(seconds)

    @property
    def state(self):
        return json.loads(json.dumps(self.meter.state()))


def card(uuid):
    return lambda clock: NvmlCounter(uuid, nvml=FakeNvml(clock, FakeCard(uuid, IDLE_THEN_BUSY)), clock=clock.clock)


_names = itertools.count()


def steady(label: Any = "estimated", name: str = "", power_w: float = 10.0):
    return lambda clock: FakeCounter(clock, "cpu", label, power_w, counted=name or f"counter {next(_names)}")


def test_two_cards_are_added_and_the_seconds_are_the_first_ones():
    one, two = Process(card("GPU-a")), Process(card("GPU-b"))
    one.train(10.0)
    two.train(8.0)
    one.meter.beside([two.state])
    energy = one.meter.report()["energy"]
    assert energy["train_j"] == one.meter.energy_j("train") == pytest.approx(300.0 * 18, rel=0.01)
    assert energy["train_net_j"] == pytest.approx(240.0 * 18, rel=0.01)
    window = energy["parts"]["gpu"]["windows"]["train"]
    assert (window["duration_s"], window["segments"]) == (pytest.approx(10.0), 2)
    assert one.meter.duration_s("train") == pytest.approx(10.0)
    alone = two.meter.report()["energy"]
    # Errors that are independent add up by their squares.
    assert energy["train_uncertainty_j"] == pytest.approx(2**0.5 * alone["train_uncertainty_j"], rel=0.05)


def test_what_is_told_later_takes_the_place_of_what_was_told_before():
    one, two = Process(steady(), device="cpu"), Process(steady(), device="cpu")
    for _ in range(3):
        one.train(1.0)
        two.train(2.0)
        one.meter.beside([two.state])
    assert one.meter.energy_j("train") == pytest.approx(3 * 10.0 + 3 * 20.0)


@pytest.mark.parametrize(("same", "device"), [(card("GPU-a"), "mps"), (steady("measured", "this machine"), "cpu")])
def test_one_card_or_machine_is_counted_once(same, device):
    one, two = Process(same, device=device), Process(same, device=device)
    one.train(4.0)
    two.train(4.0)
    alone = one.meter.energy_j("train")
    one.meter.beside([two.state, two.state])
    assert one.meter.energy_j("train") == alone


def test_a_machine_that_two_others_share_is_counted_once_too():
    here, there = (steady("measured", name) for name in ("cpu of one machine", "cpu of another"))
    one, *others = (Process(which, device="cpu") for which in (here, there, there))
    for process in (one, *others):
        process.train(3.0)
    one.meter.beside([other.state for other in others])
    assert one.meter.energy_j("train") == pytest.approx(2 * 30.0)


@pytest.mark.parametrize("other", [[steady("measured")], []], ids=["measured", "absent"])
def test_unlike_labels_are_not_added(other):
    one, two = Process(steady("estimated"), device="cpu"), Process(*other, device="cpu")
    one.train(1.0)
    two.train(1.0)
    one.meter.beside([two.state])
    energy = one.meter.report()["energy"]
    assert energy["train_j"] is one.meter.energy_j("train") is None
    assert energy["flags"] == ["ranks_differ"]
    one.meter.beside([])
    assert one.meter.energy_j("train") == pytest.approx(10.0), "what was said before is forgotten"


def test_what_is_lost_is_null_and_absent_parts_stay_absent():
    one = Process(steady(), device="cpu")
    one.train(1.0)
    one.meter.lose("rank_lost")
    report = one.meter.report()["energy"]
    assert (report["train_j"], report["flags"], report["label"]) == (None, ["rank_lost"], "estimated")
    assert report["parts"]["gpu"]["label"] == "absent" and report["parts"]["gpu"]["windows"]["train"]["flags"] == []


def test_a_sum_is_resumed_by_the_first_process_alone():
    one, two = Process(steady(), device="cpu"), Process(steady(), device="cpu")
    one.train(1.0)
    two.train(2.0)
    one.meter.beside([two.state])
    kept = one.state
    again, other = Process(steady(), device="cpu"), Process(steady(), device="cpu")
    again.meter.add_earlier(kept)
    other.meter.add_earlier(kept, joules=False)
    assert other.meter.energy_j("train") is None and other.meter.duration_s("train") == pytest.approx(1.0)
    again.train(1.0)
    other.train(1.0)
    again.meter.beside([other.state])
    assert again.meter.energy_j("train") == pytest.approx(30.0 + 20.0)
    assert again.meter.duration_s("train") == pytest.approx(2.0)


def test_counters_name_what_they_count():
    clock = FakeClock()
    assert card("GPU-a")(clock).counted() == "card GPU-a"
    process, machine = FakeCounter(clock).counted(), RaplCounter("cpu").counted()
    assert process.startswith(f"process {os.getpid()} of ") and machine == f"cpu of {process.split(' of ')[1]}"
    assert RaplCounter("dram").counted() != machine
