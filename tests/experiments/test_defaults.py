"""experiments/defaults/defaults.py, which stands outside the package."""

import json

import pytest

from localearn.errors import UserError
from tests.helpers.programs import program

QUICK = ("epochs=1", "energy.enabled=false", "progress=false", "dataset.train_size=200")


@pytest.fixture(scope="module")
def defaults():
    return program("defaults/defaults.py")


def test_a_cell_is_run_kept_and_tabled(defaults, tmp_path, capsys):
    command = ["only=digits-mlp", "algos=backprop,mono_forward", f"out={tmp_path}", *QUICK]
    assert defaults.main(list(command)) == 0
    assert "already; reused" not in capsys.readouterr().out
    assert defaults.main(list(command)) == 0
    assert capsys.readouterr().out.count("already; reused") == 2
    rows = {row["rule"]: row for row in json.loads((tmp_path / "table.json").read_text())}
    assert rows["backprop"]["ratio"] == "×1.0"
    assert rows["backprop"]["energy"] == "absent"
    assert "linear" in rows["mono_forward"]["verdict"]
    assert rows["pepita"]["verdict"] == "not run"
    linear = json.loads((tmp_path / "linear" / "digits-mlp.json").read_text())
    assert 0.9 < linear["test_accuracy"] < 1
    assert not list(tmp_path.glob("runs/*/*.pt"))


def test_a_refusal_is_kept_and_goes_where_the_rule_runs(defaults, tmp_path):
    command = ["only=digits-mlp", "algos=backprop", f"out={tmp_path}", *QUICK]
    assert defaults.main([*command, "net.widths=[-1]"]) == 0
    (row, *_) = json.loads((tmp_path / "table.json").read_text())
    assert row["verdict"].startswith("refused: ")
    assert defaults.main(list(command)) == 0
    (row, *_) = json.loads((tmp_path / "table.json").read_text())
    assert "linear" in row["verdict"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [("only=digit-mlp", "did you mean 'digits-mlp'"), ("algos=backpro", "did you mean"), ("x", "no key")],
)
def test_what_is_wrong_is_told(defaults, argument, message):
    with pytest.raises(UserError, match=message):
        defaults.main([argument])
