"""A declared option set is read from a command line, and its help page is made of it."""

import importlib
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from localearn.cli.commands import COMMANDS, module_of
from localearn.cli.options import (
    Command,
    Options,
    Range,
    RunningOptions,
    argument,
    option,
    options_of,
    read,
    run_keys,
    spec_of,
)
from localearn.cli.pages import choices_of, config_key_names, help_page
from localearn.errors import UserError


@dataclass(frozen=True)
class Made(RunningOptions):
    names: Sequence[str] = option(help="some names", value="[A,B]", missing="names= is missing, say names=[a,b]")
    shape: tuple[int, ...] = option((3, 3), "of a row")
    count: int = option(5, "how many")
    share: float = option(0.5, "of all", range=Range(least=0, below=1))
    pace_s: float | None = option(None, "between two", range=Range(above=0, unit="seconds"), value="1.0")
    kind: Literal["plain", "fancy"] = option("plain", "what is made")
    quick: bool = option(False, "in a minute", flag=("--quick",))
    keep: bool = option(True, "what was made")
    out: Path | None = option(None, "where to write", value="DIR")
    overrides: list[str] = run_keys("any key of a run")


@dataclass(frozen=True)
class Placed(Options):
    folder: Path = argument("DIR", "a folder", missing="name one folder")
    title: str | None = option(None, "a heading", value="TEXT")


def test_every_kind_of_value_is_read():
    words = ["names=[a,b]", "shape=[4,4,1]", "count=2", "share=0", "pace_s=0.25", "kind=fancy", "--quick", "keep=False"]
    made = read(Made, [*words, "out=x y", "optim.lr=1", "a:net.depth=2", "--config-dir", "conf"])
    assert (made.names, made.shape, made.count, made.share) == (["a", "b"], (4, 4, 1), 2, 0.0)
    assert (made.pace_s, made.kind, made.quick, made.keep) == (0.25, "fancy", True, False)
    assert (made.out, made.overrides, made.config_dir) == (Path("x y"), ["optim.lr=1", "a:net.depth=2"], "conf")


def test_what_is_not_given_has_its_default_and_the_last_of_two_counts():
    made = read(Made, ["names=a", "count=3", "count=4", "pace_s=null"])
    assert (made.names, made.shape, made.count, made.pace_s, made.out) == (["a"], (3, 3), 4, None, None)
    assert read(Placed, ["x"]) == Placed(folder=Path("x"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], r"^names= is missing, say names=\[a,b\]$"),
        (["nmaes=a"], "^no option 'nmaes'; did you mean 'names'"),
        (["names=[a,]"], "cannot read the list"),
        (["names=a", "shape=[3,x]"], "shape takes whole numbers of 1 or more, not 'x'"),
        (["names=a", "count=0"], "count takes whole numbers of 1 or more, not '0'"),
        (["names=a", "share=1"], "share takes numbers from 0 to below 1, not '1'"),
        (["names=a", "share=nan"], "share takes numbers from 0 to below 1, not 'nan'"),
        (["names=a", "pace_s=0"], "pace_s takes seconds above 0, not '0'"),
        (["names=a", "kind=fanci"], "kind is plain or fancy, not 'fanci'; did you mean 'fancy'"),
        (["names=a", "keep=maybe"], "keep is true or false, not 'maybe'"),
        (["names=a", "out="], "out= needs a value"),
        (["names=a", "--quik"], "unknown argument '--quik'; did you mean '--quick'"),
        (["names=a", "word"], "cannot read 'word'.*write key=value"),
        (["names=a", "--config-dir"], "--config-dir needs a value"),
    ],
)
def test_what_does_not_fit_is_told_with_the_nearest(words, said):
    with pytest.raises(UserError, match=said):
        read(Made, words)


@pytest.mark.parametrize("command", ["analyse", "bench", "check_meter", "compare", "report", "study", "tune"])
def test_a_file_is_refused_as_the_folder_to_write_in_before_any_work(command, tmp_path):
    kind = importlib.import_module(f"localearn.cli.{command}").COMMAND.options
    file = tmp_path / "notes.txt"
    file.touch()
    with pytest.raises(UserError, match=r"^out=\S+notes.txt is no folder; name one"):
        read(kind, [f"out={file}"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name one folder"),
        (["a", "b"], "name one folder"),
        (["a", "titel=x"], "unknown argument 'titel=x'; did you mean 'title'"),
    ],
)
def test_what_stands_by_position_is_counted(words, said):
    with pytest.raises(UserError, match=said):
        read(Placed, words)


def test_keys_of_a_run_are_handed_on():
    words = ["seed=1", "kind/sub=x", "+optim.x=1", "zzz=1"]  # an unknown one is the configuration's to refuse
    assert read(Made, ["names=a", *words]).overrides == words


def test_a_folder_whose_name_has_an_equals_sign_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").mkdir()
    assert read(Placed, ["lr=0.1"]).folder == Path("lr=0.1")


def test_the_page_shows_defaults_and_choices():
    page = help_page(Command("make", "Make", Made, "Makes it."))
    assert page.startswith("localearn make names=[A,B] [key=value ...]\n\nMakes it.\n\n")
    assert "\n  shape=[3,3]        of a row\n" in page
    assert "\n  kind=plain         or fancy; what is made\n" in page
    assert "\n  --quick            in a minute\n" in page


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_its_line(name):
    command = module_of(name).COMMAND
    page = help_page(command)
    hints = typing.get_type_hints(command.options)
    for key, declared in options_of(command.options).items():
        spec = spec_of(declared)
        assert f"\n  {spec.flag[0] if spec.flag else f'{key}='}" in page
        assert spec.help or choices_of(command.options, key), f"{name}: {key} has no help"
        assert key in hints
    assert all(len(line) <= 120 for line in page.partition("\nalgo=\n")[0].splitlines())


def test_a_runs_page_has_the_keys_of_its_configuration():
    page = help_page(module_of("run").COMMAND)
    assert {"seed", "energy.country", "capture"} <= set(config_key_names())
    assert all(f"\n  {name}=" in page for name in config_key_names())
