"""`localearn COMMAND` is `python -m localearn.COMMAND`."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import localearn
from localearn.cli import main as entry
from localearn.cli.commands import COMMANDS, module_of
from localearn.cli.errors import run_command
from localearn.cli.listing import served

ROOT = Path(localearn.__file__).parents[1]


def test_the_console_script_is_the_entry():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["localearn"].partition(":")
    assert getattr(importlib.import_module(module), name) is entry.console


def test_the_console_script_finds_a_class_of_the_current_folder(tmp_path):
    script = tmp_path / "bin" / "localearn"
    script.parent.mkdir()
    script.write_text("from localearn.cli.main import console\nconsole()\n")
    (tmp_path / "my_rules.py").write_text("class MyRule: ...\n")
    (tmp_path / "torch.py").write_text("raise SystemExit('torch of the current folder')\n")  # hides no package
    done = subprocess.run(
        [sys.executable, str(script), "run", "algo._target_=my_rules.MyRule"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: algo._target_=my_rules.MyRule is not a localearn.Trainer")


@pytest.mark.parametrize("words", [["--help"], ["list", "--help"], ["list", "data"], ["run", "--help"]], ids=" ".join)
def test_help_and_lists_of_files_do_not_import_torch(words):
    code = f"import sys; from localearn.cli.main import main; main({words}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 5


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("list", "report-environment")])
def test_each_command_is_its_module(name, capsys):
    module = module_of(name)
    assert entry.main([name, "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(module.COMMAND.line)
    assert run_command(module.main, ["--help"]) == 0
    assert capsys.readouterr().out == page
    if name != "check-meter":
        assert importlib.import_module(f"localearn.{name}").main is module.main


def test_an_interrupt_while_a_command_is_imported_is_one_line(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "module_of", interrupted)
    assert entry.main(["report", "runs"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "status", "told"), [("list data >&-", 0, ""), ("nope 2>/dev/full", 2, "")], ids=["closed", "full"]
)
def test_a_stream_that_is_closed_or_full_is_no_traceback(command, status, told):
    done = subprocess.run(
        f"{sys.executable} -m localearn {command}", shell=True, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (status, told)


def test_alone_it_shows_one_screen(capsys):
    assert entry.main([]) == 2
    page = capsys.readouterr().out
    assert entry.main(["--help"]) == 0
    assert capsys.readouterr().out == page
    assert len(page.splitlines()) <= 32
    assert all(f"\n  {name} " in page for name in COMMANDS)


def test_an_unknown_command_is_told_with_the_nearest(capsys):
    assert entry.main(["comapre", "x=1"]) == 2
    assert "no command 'comapre'; did you mean 'compare'?" in capsys.readouterr().err
    assert entry.main(["--versoin"]) == 2
    assert "did you mean '--version'" in capsys.readouterr().err


def test_the_version(capsys):
    assert entry.main(["--version"]) == 0
    assert capsys.readouterr().out == f"localearn {localearn.__version__}\n"


def test_lists(capsys):
    assert entry.main(["list", "nets", "data", "tasks", "presets"]) == 0
    page = capsys.readouterr().out
    assert "\n  gcn                         Graph convolutions" in page and "[graph]\n" in page
    assert "\n  digits                      scikit-learn's" in page and "[net=mlp_2x256]\n" in page
    assert "\n  LanguageModelling " in page
    assert "\n  forward_forward recipe=paper " in page
    assert entry.main(["list", "ruels"]) == 2
    assert "did you mean 'rules'" in capsys.readouterr().err


def test_a_rule_says_what_it_serves():
    kinds, tasks = served("counter_current")
    assert "mlp" in kinds and "transformer" not in kinds
    assert "classes" in tasks and "tokens" not in tasks
    assert served("my_rule") == ((), ())


def test_the_environment(capsys):
    assert entry.main(["report-environment", "device=cpu"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert set(lines) == {"localearn", "system", "versions", "device", "CUDA", "threads", "meter"}
    assert "torch" in lines["versions"] and lines["device"].strip().startswith("cpu ")
    assert all(word in lines["meter"] for word in ("gpu ", "cpu ", "dram "))


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "localearn", "list", "tasks"], ["-m", "localearn.energy.check", "--help"]])
def test_modules_run(command):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
