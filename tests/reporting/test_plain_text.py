import csv
import io
import json
import os

import pytest

from localearn.printing import visible
from localearn.reporting import read_runs, write_report
from localearn.reporting.runs import cell, visible_tree


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mono_forward, ×0.9 ± 0.1 ü 中", "mono_forward, ×0.9 ± 0.1 ü 中"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\u202eb", r"a\u202eb"),
        ("a\ud800b", r"a\ud800b"),
        ("a\tb\rc\x00", r"a\tb\rc\x00"),
        ("a\u2028b", r"a\u2028b"),
    ],
)
def test_what_is_not_seen_is_written_out(text, shown):
    assert visible(text) == shown
    assert visible_tree({text: [text, 1, None]}) == {shown: [shown, 1, None]}
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1"])
def test_a_formula_is_text(text):
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["mono_forward", "", None, -1.5, 2])
def test_what_is_no_formula_stays(value):
    assert cell(value) == value


def test_a_report_of_hostile_names_is_written_and_harmless(tmp_path, factory):
    names = ["=1+1", "@SUM(A1)", "\x1b[31mred", "\u202eright", "\ud800lone"]
    for index, name in enumerate(names):
        made = factory.record(seed=0) | {"algo": name}
        factory.write_run(tmp_path / "runs", made, name=str(index))
    runs = read_runs(tmp_path / "runs")
    out = tmp_path / "report"
    write_report(runs, out)
    for path in out.rglob("*"):
        if path.suffix in (".md", ".html", ".csv", ".json"):
            text = path.read_text(encoding="utf-8")
            assert not {"\x1b", "\u202e"} & set(text), path
    for row in csv.reader(io.StringIO((out / "report.csv").read_text(encoding="utf-8"))):
        assert not any(part[:1] in "=@\t\r" for part in row if part)


def test_an_older_record_is_of_the_class_that_ran_and_of_the_data_that_were_loaded(tmp_path, factory):
    ours = factory.record(algo="mono_forward") | {"rule": "localearn.trainers.local.mono_forward.MonoForward"}
    theirs = factory.record(algo="mono_forward") | {"rule": "my_rules.RandomReadouts"}
    mnist = factory.record(algo="mono_forward") | {"dataset": "digits"}
    mnist["config"] = {**mnist["config"], "dataset": {"_target_": "localearn.load", "name": "mnist"}}
    for index, made in enumerate((ours, theirs, mnist)):
        factory.write_run(tmp_path, made, name=str(index))
    runs = {run.folder.rpartition("/")[2]: run for run in read_runs(tmp_path)}
    assert [runs[str(index)].algo for index in range(3)] == ["mono_forward", "RandomReadouts", "mono_forward"]
    assert runs["2"].dataset == "mnist"


def test_what_is_no_regular_file_is_told_and_not_waited_for(tmp_path, factory):
    factory.write_run(tmp_path, factory.record(), name="good")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "run.json")
    runs = read_runs(tmp_path)
    assert len(list(runs)) == 1
    assert any("regular file" in note for note in runs.notes)


@pytest.mark.parametrize("head", [b"\xef\xbb\xbf", b"\xff\xfe"])
def test_a_byte_order_mark_is_read_over_and_other_bytes_are_told(tmp_path, factory, head):
    factory.write_run(tmp_path, factory.record(), name="run")
    path = tmp_path / "run" / "run.json"
    path.write_bytes(head + json.dumps(json.loads(path.read_text())).encode())
    factory.write_run(tmp_path, factory.record(seed=1), name="other")
    runs = read_runs(tmp_path)
    assert len(list(runs)) == (2 if head == b"\xef\xbb\xbf" else 1)
