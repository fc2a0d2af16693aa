import subprocess
import sys

import pytest

from localearn.cli.errors import run_command
from localearn.cli.report import main


@pytest.fixture
def runs(tmp_path, factory):
    for seed in range(2):
        factory.write_run(tmp_path / "runs", factory.record(seed=seed))
    return tmp_path / "runs"


def test_report_is_written_and_its_page_printed(runs, tmp_path, capsys):
    assert main([str(runs), f"out={tmp_path / 'out'}", "title=Two runs"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "report.html")
    assert "<title>Two runs</title>" in (tmp_path / "out" / "report.html").read_text()


def test_default_out_is_the_first_folder(runs):
    assert main([str(runs)]) == 0
    assert (runs / "report.html").is_file()


def test_a_rule_may_be_the_baseline(runs, tmp_path, factory):
    factory.write_run(runs, factory.record("mono_forward", batch_size=64))
    assert main([str(runs), f"out={tmp_path / 'out'}", "baseline=mono_forward", "allow_unlike=true"]) == 0
    assert "unlike settings" in (tmp_path / "out" / "report.md").read_text()


def test_a_baseline_of_which_no_run_is_is_refused_with_the_nearest(runs, capsys):
    assert run_command(main, [str(runs), "baseline=backporp"]) == 2
    assert "baseline=backporp: no run is of it; did you mean 'backprop'?" in capsys.readouterr().err
    assert not (runs / "report.html").exists()


def test_skipped_records_are_noted(runs, capsys):
    (runs / "bad").mkdir()
    (runs / "bad" / "run.json").write_text("{")
    assert main([str(runs)]) == 0
    assert "note: runs/bad/run.json was skipped" in capsys.readouterr().err
    assert "runs/bad/run.json was skipped" in (runs / "report.md").read_text()


def test_help(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name}=" in shown for name in ("out", "title", "baseline", "allow_unlike", "debug"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["ot=x"], "unknown argument 'ot=x'; did you mean 'out'?"),
        (["--baselin", "x"], "unknown argument '--baselin'; did you mean 'baseline'?"),
        (["out=x"], "no folder is named"),
        (["x", "out="], "out= needs a value"),
        (["x", "allow_unlike=perhaps"], "allow_unlike is true or false, not 'perhaps'"),
        (["."], "no run.json below ."),
    ],
)
def test_bad_input_is_said_in_two_lines(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    assert run_command(main, arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) <= 2


def test_no_argument_shows_the_help_and_fails(capsys):
    assert main([]) == 2
    assert "DIR..." in capsys.readouterr().out


def test_the_module_ends_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "localearn.report", "nowhere"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: there is no folder nowhere\n"


def test_importing_reports_imports_nothing_slow():
    code = "import sys, localearn.report; print(*{'matplotlib', 'scipy', 'hydra', 'codecarbon'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
