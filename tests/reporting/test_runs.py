"""Runs as reports use them: found, read, named, and their texts made harmless."""

import csv
import io
import json
import os

import pytest

from localearn.errors import UserError
from localearn.printing import visible
from localearn.reporting import read_runs, write_report
from localearn.reporting.runs import cell, visible_tree
from tests.marks import posix


def test_runs_are_found_at_any_depth_once(tmp_path, factory):
    factory.write_run(tmp_path / "deep" / "deeper", factory.record())
    factory.write_run(tmp_path, factory.record(seed=1))
    runs = read_runs([tmp_path, tmp_path / "deep"])
    assert sorted(run.record.seed for run in runs) == [0, 1]
    assert len(runs.runs[0].epochs) == 20
    assert runs.notes == ()


def test_folders_are_named_below_the_one_asked_for(tmp_path, factory):
    factory.write_run(tmp_path / "study", factory.record(), name="one")
    assert [run.folder for run in read_runs(tmp_path / "study")] == ["study/one"]


def test_what_a_record_says_is_read(tmp_path, factory):
    factory.write_run(tmp_path, factory.record(machine="cuda"))
    (run,) = read_runs(tmp_path)
    assert str(run.energy.reading) == "measured, nvml, gpu"
    assert run.train_s is not None
    assert run.energy.train_j == pytest.approx(180 * run.train_s, rel=0.03)
    assert run.energy.parts["gpu"].windows["setup"].energy_j == 21.0
    assert run.energy.parts["cpu"].reading.label == "absent"
    assert run.samples_seen == 20 * 1294


def test_a_number_without_a_label_is_absent(tmp_path, factory):
    made = factory.record()
    made["energy"]["label"] = "absent"
    factory.write_run(tmp_path, made | {"co2e": {"label": "absent"}})
    (run,) = read_runs(tmp_path)
    assert (run.energy.train_j, run.energy.train_net_j, run.co2e_kg) == (None, None, None)


def test_flags_of_the_training_window_count_with_those_of_the_run(tmp_path, factory):
    made = factory.record()
    made["energy"]["flags"] = ["throttled"]
    made["energy"]["parts"]["cpu"]["windows"]["train"]["flags"] = ["too_short"]
    factory.write_run(tmp_path, made)
    (run,) = read_runs(tmp_path)
    assert run.energy.flags == ("throttled", "too_short")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema": 1, "status": "comp', "truncated or not JSON"),
        ("", "truncated or not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"schema": 7}', "schema 7 is unknown"),
        ("{}", "schema None is unknown"),
        ('{"schema": 1}', "status is missing"),
        ('{"schema": ' + "9" * 5000 + "}", "nesting that no record has"),
        ("[" * 100_000, "nesting that no record has"),
    ],
)
def test_a_bad_record_is_named_and_the_good_ones_are_read(tmp_path, factory, content, said):
    factory.write_run(tmp_path, factory.record(), name="good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text(content)
    runs = read_runs(tmp_path)
    assert len(runs) == 1
    (note,) = runs.notes
    assert note.startswith(f"{tmp_path.name}/bad/run.json was skipped")
    assert said in note


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test_accuracy": "high"}, "test_accuracy is 'high'"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": True}, "seed is True"),
        ({"net": None}, "net is missing"),
        ({"energy": []}, "energy is []"),
        ({"energy": {"label": "guessed"}}, "label is 'guessed'"),
        ({"energy": {"label": "measured", "flags": "hot"}}, "flags is 'hot'"),
        ({"energy": {"parts": {"gpu": 3}}}, "energy.parts.gpu is no object"),
        ({"finished": "yesterday"}, "finished is 'yesterday'"),
        ({"train_s": 10**400}, "impossible size"),
        ({"seams": 3}, "seams is no list"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(tmp_path, factory, change, said):
    factory.write_run(tmp_path, factory.record(), name="good")
    folder = factory.write_run(tmp_path, factory.record(seed=1), name="bad")
    (folder / "run.json").write_text(json.dumps(factory.record(seed=1) | change))
    (note,) = read_runs(tmp_path).notes
    assert said in note


def test_a_number_that_is_not_finite_is_absent(tmp_path, factory):
    factory.write_run(tmp_path, factory.record(test_accuracy=float("nan")))
    (run,) = read_runs(tmp_path)
    assert run.test_figure is None


def test_bytes_that_are_no_text(tmp_path, factory):
    factory.write_run(tmp_path, factory.record(), name="good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_bytes(b"\xff\xfe{}")
    assert "not UTF-8" in read_runs(tmp_path).notes[0]


def test_a_broken_line_ends_the_curve(tmp_path, factory):
    folder = factory.write_run(tmp_path, factory.record())
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(lines[:5]) + '\n{"epoch": 6, "val_acc')
    runs = read_runs(tmp_path)
    assert len(runs.runs[0].epochs) == 5
    assert "broken from line 6" in runs.notes[0]


def test_a_missing_curve_is_noted(tmp_path, factory):
    factory.write_run(tmp_path, factory.record(), curve=False)
    runs = read_runs(tmp_path)
    assert runs.runs[0].epochs == ()
    assert "no metrics.jsonl" in runs.notes[0]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        read_runs(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is no folder"):
        read_runs(tmp_path / "file")


def test_no_record_below(tmp_path):
    with pytest.raises(UserError, match=r"no run\.json below"):
        read_runs(tmp_path)


def test_no_good_record_below(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"no record can be read: .*/a/run\.json.*and 1 more"):
        read_runs(tmp_path)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o000)
    with pytest.raises(UserError, match="cannot be read"):
        read_runs(tmp_path / "closed")


def test_a_record_of_impossible_size_is_not_read(tmp_path, factory):
    factory.write_run(tmp_path, factory.record(), name="good")
    factory.write_run(tmp_path, factory.record(), name="large")
    with (tmp_path / "large" / "run.json").open("ab") as file:
        file.truncate(2**26 + 1)
    runs = read_runs(tmp_path)
    assert len(runs) == 1
    assert runs.notes == (f"{tmp_path.name}/large/run.json was skipped: it has more than 64 MiB, so localearn "
                          "did not write this JSON.",)  # fmt: skip


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


@posix
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
