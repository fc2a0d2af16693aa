"""A powercap folder of our own, read as the kernel's would be."""

from pathlib import Path

import pytest

from localearn.energy.rapl import RaplCounter
from localearn.energy.sources import AbsentError, LostError, idle_power_w
from localearn.testing.energy import FakeClock

RANGE_UJ = 262_143_000_000


def zone(root: Path, folder: str, name: str, energy_uj: int, range_uj: int = RANGE_UJ) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(name + "\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    return path / "energy_uj"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_packages_are_added_up_and_nothing_else(tmp_path: Path, clock: FakeClock):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 2_000_000)
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    counter = RaplCounter("cpu", tmp_path, clock.clock)
    counter.open()
    begin = counter.read()
    clock.advance(1.0)
    first.write_text("4000000")
    second.write_text("9000000")
    for other in others:
        other.write_text("500000000")
    assert counter.joules(begin, counter.read()) == pytest.approx(3.0 + 7.0)
    counter.close()


def test_dram_is_a_part_of_its_own(tmp_path: Path, clock: FakeClock):
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", 0)
    counter = RaplCounter("dram", tmp_path, clock.clock)
    counter.open()
    begin = counter.read()
    dram.write_text("1500000")
    assert counter.joules(begin, counter.read()) == pytest.approx(1.5)
    counter.close()


def test_a_wrap_is_undone(tmp_path: Path, clock: FakeClock):
    file = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 5_000_000)
    counter = RaplCounter("cpu", tmp_path, clock.clock)
    counter.open()
    begin = counter.read()
    clock.advance(1.0)
    file.write_text("7000000")
    assert counter.joules(begin, counter.read()) == pytest.approx(12.0)
    counter.close()


def test_a_decrease_that_no_wrap_explains_is_a_reset(tmp_path: Path, clock: FakeClock):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 100_000_000)
    counter = RaplCounter("cpu", tmp_path, clock.clock)
    counter.open()
    begin = counter.read()
    clock.advance(1.0)
    file.write_text("0")
    after = counter.read()
    with pytest.raises(LostError, match="counter_reset"):
        counter.joules(begin, after)
    counter.close()


def test_a_file_that_goes_away_is_a_lost_reading(tmp_path: Path, clock: FakeClock):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    counter = RaplCounter("cpu", tmp_path, clock.clock)
    counter.open()
    file.unlink()
    with pytest.raises(LostError, match="source_lost"):
        counter.read()
    counter.close()
    counter.close()


def test_a_machine_without_counters_is_absent(tmp_path: Path):
    with pytest.raises(AbsentError, match="no RAPL package counter"):
        RaplCounter("cpu", tmp_path).open()
    with pytest.raises(AbsentError, match="no RAPL dram counter"):
        RaplCounter("dram", tmp_path / "nowhere").open()


class Guarded(type(Path())):
    """A powercap folder as Linux shows it to anyone but root, and to root too: the counts alone may not be read."""

    def read_text(self, *args, **kwargs) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return super().read_text(*args, **kwargs)


def test_counters_for_root_only_are_absent_with_the_file(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with pytest.raises(AbsentError, match=r"energy_uj may be read by root only"):
        RaplCounter("cpu", Guarded(tmp_path)).open()


def test_a_counter_full_of_nonsense_is_absent(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "package-0", 0).write_text("many")
    with pytest.raises(AbsentError, match="RAPL"):
        RaplCounter("cpu", tmp_path).open()


def test_idle_power_is_read_at_both_ends(tmp_path: Path, clock: FakeClock):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    counter = RaplCounter("cpu", tmp_path, clock.clock)
    counter.open()
    advance = clock.advance

    def burn(seconds: float) -> None:
        advance(seconds)
        file.write_text(str(round(clock.now_s * 40e6)))

    file.write_text(str(round(clock.now_s * 40e6)))
    power_w = idle_power_w([counter], 2.0, type(clock.clock)(now=clock.clock.now, sleep=burn))
    assert power_w["cpu"] == pytest.approx(40.0)
    counter.close()
