"""Former names of modules: importable for one release, with a warning that says the new one."""

import importlib
import sys
from collections.abc import Iterator

import pytest

from localearn import moved
from localearn.energy.sources import Clock
from localearn.errors import UserError
from localearn.training.callbacks import Callback, Callbacks
from localearn.training.loop import Loop


@pytest.fixture(autouse=True)
def unloaded() -> Iterator[None]:
    """Have no former module loaded before and after, so that each import warns."""
    for name in moved.MOVED:
        sys.modules.pop(name, None)
    yield
    for name in moved.MOVED:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("former", sorted(moved.MOVED))
def test_every_former_module_names_its_new_place(former: str):
    with pytest.warns(FutureWarning, match=f"^{former} has moved: import {moved.MOVED[former]}$"):
        module = importlib.import_module(former)
        place = importlib.import_module(moved.MOVED[former])
        own = [
            name
            for name, value in vars(place).items()
            if not name.startswith("__") and str(getattr(value, "__module__", "")).startswith(place.__name__)
        ]
        assert own
        assert all(getattr(module, name) is getattr(place, name) for name in own)


@pytest.mark.parametrize(
    ("former", "names"),
    [
        ("localearn.energy.carbon", ["Grid", "grid"]),
        ("localearn.energy.card", ["CardLog", "THROTTLE_REASONS"]),
        ("localearn.energy.check.checks", ["EXPECTATIONS", "not_run", "run_checks"]),
        ("localearn.energy.check.load", ["BURST_S", "Load", "MatrixLoad"]),
        ("localearn.energy.check.neighbour", ["READY", "loaded_by_another"]),
        ("localearn.energy.check.outcome", ["Outcome", "Verdict", "difference"]),
        ("localearn.energy.counter", ["AbsentError", "Counter", "Label", "LostError", "Mark", "Part", "machine"]),
        ("localearn.energy.fake", ["FakeCard", "FakeClock", "FakeCounter", "FakeNvml", "Recording", "Script"]),
        ("localearn.energy.power", ["SAMPLE_S", "PowerIntegral", "PowerSampler"]),
        ("localearn.locks", ["Held", "locked"]),
        ("localearn.records.checksums", ["append_checksum", "digest_of", "is_intact"]),
        ("localearn.records.energy", ["LABELS", "Energy", "Part", "Reading", "Window", "label_of", "parse_energy"]),
        ("localearn.reporting.data", ["COLUMNS", "KIND", "as_csv", "as_json"]),
        ("localearn.reporting.depth", ["depth_figures", "net_depth"]),
        ("localearn.reporting.likeness", ["Settings", "option_differences", "options", "settings", "stopping"]),
        ("localearn.reporting.markdown", ["as_markdown"]),
        ("localearn.reporting.metric_energy", ["metric_energy_figure"]),
        ("localearn.reporting.page", ["as_html"]),
        ("localearn.reporting.plain_text", ["cell", "visible_tree"]),
        ("localearn.reporting.prose", ["FLAGS", "machine_table", "method", "reading_guide", "repeat_commands"]),
        ("localearn.reporting.reading", ["Runs", "named_below", "read_runs"]),
    ],
)
def test_what_a_former_module_held_is_still_there(former: str, names: list[str]):
    with pytest.warns(FutureWarning, match="has moved"):
        module = importlib.import_module(former)
        assert [name for name in names if not hasattr(module, name)] == []  # some have a new name there, and warn too


def test_an_import_of_a_name_warns_at_its_own_line():
    with pytest.warns(FutureWarning, match=r"localearn.energy.clock has moved") as caught:
        exec(compile("from localearn.energy.clock import Clock as former", "mine.py", "exec"), found := {})
    assert found["former"] is Clock
    assert [warning.filename for warning in caught] == ["mine.py"]


def test_what_never_was_is_not_found():
    with pytest.warns(FutureWarning, match="has moved"):
        former = importlib.import_module("localearn.energy.clock")
    with pytest.raises(AttributeError, match=r"'localearn.energy.clock', now .*sources', has no attribute 'Never'"):
        _ = former.Never
    with pytest.raises(ModuleNotFoundError, match=r"localearn\.energy\.never"):
        importlib.import_module("localearn.energy.never")


def test_a_second_installation_changes_nothing():
    before = list(sys.meta_path)
    moved.install()
    assert sys.meta_path == before


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in moved.MOVED_NAMES.items() for n in names])
def test_every_former_name_is_its_new_place(module: str, name: str):
    source, _, present = moved.MOVED_NAMES[module][name].rpartition(".")
    with pytest.warns(FutureWarning, match=rf"^{module}\.{name} has moved: use {source}\.{present}$") as caught:
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(source), present)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("module", sorted(moved.MOVED_NAMES))
def test_a_module_of_former_names_has_no_others(module: str):
    with pytest.raises(AttributeError, match=f"^module '{module}' has no attribute 'nothing'$"):
        getattr(importlib.import_module(module), "nothing")  # noqa: B009 - it is not there


def test_a_renamed_attribute_warns_at_the_caller_and_forwards():
    class Own:
        saves = True
        kept = moved.Renamed("saves")

    loop = Own()
    with pytest.warns(FutureWarning, match=r"^Own\.kept is deprecated: use saves$") as caught:
        assert loop.kept is True
        loop.kept = False
    assert loop.saves is False
    assert {warning.filename for warning in caught} == {__file__}


def test_former_names_of_attributes_work_and_warn():
    error = UserError("no room")
    with pytest.warns(FutureWarning, match=r"^UserError\.tell is deprecated: use print_on_this_rank$"):
        error.tell = False
    with pytest.warns(FutureWarning, match=r"^UserError\.tell is deprecated"):
        assert error.tell is error.print_on_this_rank is False

    events = []

    class Steps(Callback):
        def step_ended(self, context):
            events.append(context)

    callbacks = Callbacks([steps := Steps()])
    with pytest.warns(FutureWarning, match=r"^Callbacks\.of_steps is deprecated: use step_callbacks$"):
        assert callbacks.of_steps == (steps,)
    with pytest.warns(FutureWarning, match=r"^Callbacks\.tell is deprecated: use dispatch$"):
        callbacks.tell("step_ended", "a context")
    assert events == ["a context"]
    assert vars(Loop)["kept"].present == "saves_checkpoints"
