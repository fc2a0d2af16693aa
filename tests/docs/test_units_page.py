"""docs/units.md: its Python is run, and its commands' options are there."""

import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent.parent / "docs" / "units.md").read_text(encoding="utf-8")


def test_its_python_writes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/units.md", "exec"), {})
    printed = re.fullmatch(r"\[([^\]]+)\] \((\d), [\d.]+\)", capsys.readouterr().out.strip())
    assert printed
    hoyer, called = printed.groups()
    assert all(0 < float(value) < 1 for value in hoyer.split(", ")) and called != "3"
    assert "3" in (tmp_path / "units" / "analysis.md").read_text(encoding="utf-8")
