"""docs/tables.md: its example files are made, and each of its commands trains on them; docs/howto/run.md has three."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
RUN = (Path(__file__).parents[2] / "docs" / "howto" / "run.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n# examples\.py\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^localearn run (.+)$", PAGE, re.MULTILINE)
QUICK = ("epochs=2", "progress=false", "energy.enabled=false", "out=run")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_page_trains(door, command):
    (code,) = EXAMPLES
    exec(compile(code, "docs/tables.md", "exec"), {})  # into the test's own folder
    ended = door(*command.split(), *QUICK)
    assert ended.status == 0, ended.err


def test_the_lines_on_own_files_of_the_page_of_all_data_are_among_them():
    lines = re.findall(r"^localearn run (dataset=(?:table|coordinates|interactions) .+?)(?:  .*)?$", RUN, re.M)
    assert len(lines) == 3 and all(line.strip() in COMMANDS for line in lines)


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "wine", "photo"])
def test_what_is_embedded_needs_no_file_and_no_network(door, no_network, name):
    assert f"localearn run dataset={name} " in RUN or f"localearn run dataset={name}\n" in RUN
    ended = door(f"dataset={name}", *QUICK)
    assert ended.status == 0, ended.err
