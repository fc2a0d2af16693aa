"""Each command of the pages is one that localearn takes, and their Python runs."""

import re
import shlex
import sys

import pytest
from site_repository import ROOT

import localearn.run

pytestmark = pytest.mark.slow

PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMMAND = re.compile(r"^localearn run(?: +(.*?))?(?: +# .*)?$", re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
OWN = (
    "my_",
    "--config-dir",
    "resume=",
    "config=",
    "mine.",
    "=DIR",
    "--help",
    "--cfg",
    "-m ",
    "houses.csv",
    "ratings.csv",
)


def commands():
    """The commands of the pages that need no file of the reader's own, each with its page."""
    found = {}
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text(encoding="utf-8")):
            if not any(word in (match[1] or "") for word in OWN) and "\\" not in match[0] and "..." not in match[0]:
                found.setdefault((match[1] or "").strip(), page.relative_to(ROOT).as_posix())
    return [pytest.param(command, id=f"{page}: {command}") for command, page in found.items()]


def blocks(page):
    """The Python of a page."""
    return PYTHON.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run `python -m localearn.run` with these arguments in this process; return its status and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments):
        status = localearn.run.main(list(arguments))  # a UserError passes, with its message
        told = capsys.readouterr()
        return status, told.out, told.err

    yield run
    for name in [name for name in sys.modules if name.startswith("my_")]:  # other tests have modules of these names
        del sys.modules[name]


@pytest.mark.parametrize("line", commands())
def test_each_command_is_composed(command, line):
    status, out, err = command(*shlex.split(line), "--cfg", "job")
    assert not status, err
    assert "_target_: localearn." in out


def test_the_first_hour_is_what_happens(command, tmp_path, capsys):
    look, mine, rule = blocks("first-hour.md")
    page = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
    status, out, err = command("out=runs/first")
    assert not status, err
    shown = re.search(r"mono_forward on digits: test accuracy ([\d.]+) %", page)
    got = re.search(r"mono_forward on digits: test accuracy ([\d.]+) %", out)
    assert shown and got and abs(float(shown[1]) - float(got[1])) <= 2
    for code in (look, mine):
        exec(compile(code, "first-hour.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("[4, 5, 6, 9, 4]") == 1
    assert float(printed.splitlines()[-1]) == pytest.approx(0.94, abs=0.02) and "\n0.9399999976158142\n" in page
    (tmp_path / "my_rules.py").write_text(rule, encoding="utf-8")
    status, out, err = command("algo._target_=my_rules.RandomReadouts", "epochs=5", "out=runs/rule")
    assert not status and "RandomReadouts on digits" in out, err


def accuracy_in(text, start):
    """The percentage, or the error, that follows a line's start."""
    found = re.search(re.escape(start) + r"[a-z ]* ([\d.]+)", text)
    assert found, f"{start!r} is not in {text[-400:]!r}"
    return float(found[1])


def test_the_first_hours_other_runs_end_as_it_shows(command):
    page = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
    step = page[page.index("## 4.") : page.index("## 5.")]
    commands = COMMAND.findall(step)
    shown = re.findall(r"^(\w+ on \w+: test \w+)", step, re.MULTILINE)
    assert len(commands) == len(shown) == 3
    for line, start in zip(commands, shown, strict=True):
        status, out, err = command(*line.split(), "progress=false", "energy.enabled=false")
        assert not status, err
        assert accuracy_in(out, start) == pytest.approx(accuracy_in(step, start), abs=2.5), start


def test_the_tuning_shown_is_what_happens(tmp_path, monkeypatch, capsys):
    from localearn.cli import tune

    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "howto" / "tune.md").read_text(encoding="utf-8")
    line = re.search(r"^localearn tune (.*)$", page, re.MULTILINE)
    assert line and not tune.main([*line[1].split(), "energy.enabled=false"])
    out = capsys.readouterr().out
    for start in ("trial 0: validation", "trial 5: validation", "10 complete; best"):
        assert accuracy_in(out, start) == pytest.approx(accuracy_in(page, start), abs=2), start


@pytest.mark.parametrize(
    "page",
    ["concepts/net.md", *(f"howto/{name}.md" for name in ("python", "add-net", "add-task", "add-meter", "add-data"))],
)
def test_the_pages_python_runs(command, page, capsys, tmp_path):
    for code in blocks(page):
        exec(compile(code, page, "exec"), {"__name__": "page"})
    if page == "howto/add-data.md":
        (tmp_path / "my_data.py").write_text(blocks(page)[0], encoding="utf-8")
        (config,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
        (tmp_path / "conf" / "dataset").mkdir(parents=True)
        (tmp_path / "conf" / "dataset" / "spirals.yaml").write_text(config, encoding="utf-8")
        status, out, err = command(
            "--config-dir", "conf", "dataset=spirals", "dataset.noise=0.1", "epochs=5", "out=run"
        )
        assert not status and "on spirals: test accuracy" in out, err


def test_the_callback_follows_a_run(command, capsys, tmp_path):
    callback, use = blocks("howto/add-callback.md")
    (tmp_path / "my_callbacks.py").write_text(callback, encoding="utf-8")
    exec(compile(use, "howto/add-callback.md", "exec"), {})
    assert re.findall(r"^gradients in epoch (\d+): \S+ \S+$", capsys.readouterr().out, re.MULTILINE) == ["1", "2"]
    text = (ROOT / "docs" / "howto" / "add-callback.md").read_text(encoding="utf-8")
    line = re.search(r'^localearn run "(callbacks=.*)"$', text, re.MULTILINE)
    assert line
    status, out, err = command(line[1], "epochs=2", "progress=false", "out=run")
    assert not status and "gradients in epoch 2:" in out, err
