"""CodeCarbon's estimate, read by our own clocks, against its own tasks; what its start does not do; its grids."""

import logging
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from localearn.energy.codecarbon import CpuEstimate, ProcessModel, RamEstimate, grid
from localearn.energy.sources import AbsentError, Mark
from localearn.errors import UserError


@pytest.fixture(scope="module")
def model() -> ProcessModel:
    model = ProcessModel()
    model.wait()
    return model


def work(seconds: float) -> None:
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass


def test_it_agrees_with_codecarbons_own_task(model: ProcessModel):
    """CodeCarbon sees CPU time in steps of 10 ms, so both ends of its task may be off by one."""
    import codecarbon

    tracker = codecarbon.OfflineEmissionsTracker(
        country_iso_code="POL",
        tracking_mode="process",
        force_mode_cpu_load=True,
        output_methods=[],
        gpu_ids=[],
        log_level="critical",
    )
    cpu, ram = CpuEstimate(model), RamEstimate(model)
    tracker.start_task("work")
    begin = cpu.read(), ram.read()
    work(0.5)
    end = cpu.read(), ram.read()
    theirs = tracker.stop_task("work")
    assert cpu.joules(begin[0], end[0]) == pytest.approx(theirs.cpu_energy * 3.6e6, abs=0.03 * model.core_w)
    assert ram.joules(begin[1], end[1]) == pytest.approx(theirs.ram_energy * 3.6e6, abs=0.03 * model.ram_w)


def test_it_starts_no_thread_writes_no_file_and_says_nothing(
    model: ProcessModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    threads = set(threading.enumerate())
    another = ProcessModel()
    another.wait()
    assert set(threading.enumerate()) <= threads
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("codecarbon").level == logging.CRITICAL
    assert another.core_w == model.core_w


def test_prefetch_returns_at_once_and_the_notes_tell_the_model(model: ProcessModel):
    cpu, ram = CpuEstimate(model), RamEstimate(model)
    for counter in (cpu, ram):
        counter.open()
        counter.prefetch()
        counter.ready()
        counter.close()
    package_w = model.core_w * (psutil.cpu_count() or 1)
    assert f"process mode: {package_w:g} W" in cpu.note
    assert "memory module" in ram.note


def test_a_failed_start_is_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    broken = CpuEstimate(ProcessModel())
    with pytest.raises(AbsentError, match=r"CodeCarbon: .*codecarbon"):
        broken.ready()
    with pytest.raises(AbsentError, match="CodeCarbon"):
        broken.joules(Mark(0.0), Mark(1.0))


def test_a_start_that_hangs_is_absent():
    release = threading.Event()

    def hanging() -> NoReturn:
        release.wait(30)
        raise TimeoutError

    with pytest.raises(AbsentError, match=r"did not start within 0\.05 s"):
        ProcessModel(hanging, start_limit_s=0.05).wait()
    release.set()


def test_a_known_country_has_an_intensity():
    poland, norway = grid("POL"), grid(" nor ")
    assert (poland.country, norway.country) == ("POL", "NOR")
    assert 0.3 < poland.intensity_kg_per_kwh < 1.0
    assert norway.intensity_kg_per_kwh < 0.1
    assert poland.kg(3.6e6) == pytest.approx(poland.intensity_kg_per_kwh)


@pytest.mark.parametrize(
    ("wrong", "near"), [("PL", "POL"), ("POLL", "POL"), ("Poland", "POL"), ("FRANCE", "FRA"), ("GER", "DEU")]
)
def test_an_unknown_code_is_refused_with_the_nearest(wrong: str, near: str):
    with pytest.raises(UserError, match=rf"{wrong}.*did you mean.* '{near}' \("):
        grid(wrong)


@pytest.mark.parametrize("wrong", ["", "@@@", "world"])
def test_nothing_falls_back_on_a_world_average(wrong: str):
    with pytest.raises(UserError, match="no country code"):
        grid(wrong)
