"""The command for a GPU, tried with small nets where there is none; and its packing of records."""

import importlib
import json
import sys
import tarfile
from pathlib import Path

import pytest

from localearn.cli.errors import run_command
from localearn.grid import GRACE_S, Budget

FOLDER = Path(__file__).parents[2] / "experiments" / "one_gpu"


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("measure")
    for name in ("measure", "packing", "energy_study"):
        sys.modules.pop(name, None)


@pytest.fixture
def packing(measure):
    return importlib.import_module("packing")


@pytest.mark.slow
def test_small_tries_all_of_it_in_a_minute_and_once(measure, tmp_path, capfd):
    work, out = tmp_path / "work", tmp_path / "out"
    asked = ["small=true", "device=cpu", f"work={work}", f"out={out}"]
    assert run_command(measure.main, asked) == 0
    told = capfd.readouterr().out
    commands = [line.split()[3] for line in told.splitlines() if line.startswith("$ python -m ")]
    study = ["localearn.compare"] * 2 + ["localearn.study"] * 2
    assert commands == ["pytest", "localearn.bench", *study], "in order of worth"
    assert (
        told.count("\n  expected ") == told.count("\n  done, ") == 6
        and "nothing is left" in told
        and "failed:" not in told
    )
    record = json.loads((work / "asked.json").read_text())
    assert {piece["status"] for piece in record["pieces"].values()} == {"done"}
    lines = {line["what"]: line["measured"] for line in record["lines"]}
    assert "skipped" in lines["pytest -m gpu"]
    assert lines["mono_forward, captured step"].endswith(", not captured")
    for row in ("mnist-mono_forward", "fashion_mnist-mono_forward"):
        for protocol in ("matched", "converged"):
            assert "points of accuracy, time ×" in lines[f"{row}, {protocol}"]
    assert lines["CIFAR-10, CNN 64-128-256-512, Mono-Forward"].endswith("%, 1 of 3 seeds (off)")
    assert len([measured for measured in lines.values() if measured is None]) == 4, "by name alone"
    page = (work / "asked.md").read_text()
    assert "say nothing of a device" in page and "| not run |" in page and "| met |" not in page

    assert [path.name for path in out.iterdir()] == ["records-0.tar"]
    with tarfile.open(out / "records-0.tar") as archive:
        packed = archive.getnames()
    assert packed[:2] == ["asked.md", "asked.json"]
    assert {"steps/bench.json", "logs/tests.txt", "fidelity/table.json"} < set(packed)
    assert "energy/mnist-mono_forward/runs/matched-backprop-0/run.json" in packed
    assert not any(name.endswith((".pt", ".safetensors")) for name in packed)

    assert run_command(measure.main, asked) == 0
    again = capfd.readouterr().out
    assert "$ python" not in again and page in again


def test_the_parts_fit_into_two_commands_in_order_of_worth(measure, tmp_path):
    asked = measure.Asked(tmp_path, tmp_path / "out", "cuda")
    calls, done = [], set()
    for _ in range(2):
        rest_s, begun = asked.budget_s - measure.RESERVE_S, []
        for part in ("tests", "steps", "energy", "cnn"):
            for piece in measure.PARTS[part].pieces(asked):
                if piece.name not in done and piece.expected_s <= rest_s:
                    begun.append(piece.name)
                    rest_s -= piece.expected_s
        done |= set(begun)
        calls.append(begun)
    assert asked.budget_s <= 9 * 60 - GRACE_S
    assert calls[0] == ["tests", "steps", "energy-mnist-mono_forward", "energy-fashion_mnist-mono_forward"]
    assert calls[1][:2] == ["cnn-cifar10_cnn-mono_forward-0", "cnn-cifar10_cnn-backprop-0"]


def test_the_convolutional_rows_are_those_of_the_table_that_were_not_run(measure):
    rows = {**measure.CNN_FIRST, **measure.CNN_REST}
    there = {path.stem for path in (measure.ROOT / "experiments" / "fidelity").glob("cifar10_*.yaml")}
    assert set(rows) == {row for row in there if "_mlp-" not in row} - {"cifar10_cnn-cafo"}


def test_a_card_is_measured_at_full_size_with_every_rule_and_three_seeds(measure, tmp_path):
    asked = measure.Asked(tmp_path, tmp_path / "out", "cuda")
    (steps,) = measure.steps(asked)
    assert {"width=2000", "depth=3", "capture=graph", "device=cuda"} < set(steps.command)
    assert not any(word.startswith("rules=") for word in steps.command)
    for piece in measure.energy(asked):
        assert "seeds=[0,1,2]" in piece.command and "device=cuda" in piece.command and piece.resumes
        assert not any(word.startswith("protocols=") for word in piece.command), "both"
    (tests,) = measure.tests(asked)
    files = {Path(word).name for word in tests.command if word.endswith(".py")}
    assert "test_meter_gpu.py" in files and "test_one_gpu.py" not in files


@pytest.mark.parametrize(
    ("argument", "said"),
    [("only=step", "did you mean 'steps'"), ("ony=steps", "did you mean 'only'"), ("steps", "write key=value"),
     ("small=perhaps", "small"), ("device=cuda:77", "cuda:77"), ("budget_s=5", "30 or more"),
     ("out=WORK/packed", "lies in work=")],
)  # fmt: skip
def test_wrong_words_are_told(argument, said, measure, tmp_path, capsys):
    argument = argument.replace("WORK", str(tmp_path / "none"))
    assert run_command(measure.main, [argument, f"work={tmp_path / 'none'}"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("key", ["work", "out"])
def test_a_folder_that_cannot_be_written_is_told(key, measure, tmp_path, capsys):
    folders = {"work": tmp_path / "work", "out": tmp_path / "out"} | {key: "/proc/none"}
    words = [f"{name}={folder}" for name, folder in folders.items()]
    assert run_command(measure.main, ["small=true", "device=cpu", *words]) == 2
    assert f"{key}=/proc/none cannot be written to" in capsys.readouterr().err


def test_a_state_that_cannot_be_read_is_told(measure, tmp_path, capsys):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "state.json").write_text("{")
    assert run_command(measure.main, ["small=true", "device=cpu", f"work={tmp_path / 'work'}"]) == 2
    assert "state.json cannot be read" in capsys.readouterr().err


def test_records_are_packed_into_few_files_of_a_limited_size(packing, tmp_path):
    file_bytes = 40_960
    work, out = tmp_path / "work", tmp_path / "out"
    out.mkdir()
    for folder, status in (("done", "completed"), ("half", "interrupted")):
        (work / folder).mkdir(parents=True)
        (work / folder / "run.json").write_text(json.dumps({"status": status}))
        (work / folder / "checkpoint.pt").write_bytes(b"w" * 3_000)
    for number in range(12):
        (work / f"{number:02}-{'long' * 40}").write_bytes(bytes([number]) * 10_000)
    (work / "large").write_bytes(b"0" * 40_000)
    (work / "asked.md").write_text("first")
    for _ in range(2):  # packs of an earlier call are none of its records
        files, left_out = packing.pack(work, out, ["asked.md", "11-" + "long" * 40], file_bytes)
        assert sorted(out.iterdir()) == files and len(files) == packing.FILES <= 8
        assert all(path.stat().st_size <= file_bytes < packing.FILE_BYTES == 16 * 2**20 for path in files)
    names = []
    for path in files:
        with tarfile.open(path) as archive:
            names += archive.getnames()
            archive.extractall(tmp_path / "again", filter="data")
    with tarfile.open(files[0]) as archive:
        assert archive.getnames()[:2] == ["asked.md", "11-" + "long" * 40]
    assert "large" in left_out and "done/checkpoint.pt" not in [*names, *left_out]
    there = {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}
    assert sorted([*names, *left_out, "done/checkpoint.pt"]) == sorted(there), "each is packed once or named"
    assert all((tmp_path / "again" / name).read_bytes() == (work / name).read_bytes() for name in names)
    assert "half/checkpoint.pt" in names, "an interrupted run goes on with it"


def test_a_finished_piece_is_packed_before_the_next_one_begins(measure, tmp_path, monkeypatch):
    """What is lent may be taken back, with SIGKILL, in the midst of a piece."""
    work, out = tmp_path / "work", tmp_path / "out"
    first = f"import pathlib; pathlib.Path({str(work / 'one')!r}).write_text('measured')"
    names = f"tarfile.open({str(out / 'records-0.tar')!r}).getnames()"
    second = f"import pathlib, tarfile; pathlib.Path({str(work / 'two')!r}).write_text(' '.join({names}))"

    def pieces(asked):
        named = {"one": first, "two": second}
        return [asked.piece(name, 1.0, ["python", "-c", code], work / name) for name, code in named.items()]

    monkeypatch.setattr(measure, "PARTS", {"both": measure.Part(pieces, lambda asked: [], "two files")})
    assert measure.main(["only=both", "device=cpu", f"work={work}", f"out={out}"]) == 0
    assert {"one", "state.json"} <= set((work / "two").read_text().split())
    with tarfile.open(out / "records-0.tar") as archive:
        assert {"asked.md", "one", "two"} < set(archive.getnames())


def test_a_step_that_was_not_captured_meets_nothing(measure, tmp_path):
    ours = {"algo": "mono_forward", "captured": "off", "ratio": {"median": 0.5}, "joules_per_sample": None}
    theirs = {"algo": "backprop", "captured": "graph", "joules_per_sample": {"median": 2.0}}
    found = {"benches": [{"rules": [theirs, ours], "energy": None}]}
    (tmp_path / "steps").mkdir()
    bench = tmp_path / "steps" / "bench.json"
    bench.write_text(json.dumps(found))
    asked = measure.Asked(tmp_path, tmp_path / "out", "cpu")
    step, joules = measure.steps_lines(asked)
    assert (step.measured, step.met) == ("0.500, not captured", False)
    assert (joules.measured, joules.met) == ("absent", None)
    ours |= {"captured": "graph", "joules_per_sample": {"median": 1.5}}
    bench.write_text(json.dumps(found))
    step, joules = measure.steps_lines(asked)
    assert step.met and (joules.measured, joules.met) == ("0.750", False)
    steps = {"status": "done", "seconds": 1.0, "exit": 0, "like": ""}
    (tmp_path / "state.json").write_text(json.dumps({"steps": steps}))
    measure.write(asked, Budget(tmp_path, 60, 0.0))
    page = (tmp_path / "asked.md").read_text()
    assert "| 0.500 | met |" in page and "| 0.750 | short |" in page


@pytest.mark.parametrize(
    ("last", "met"),
    [("14 passed, 105 deselected in 9.1s", True), ("14 skipped in 0.09s", False), ("1 failed, 13 passed in 9s", False),
     ("13 passed, 1 skipped in 9s", False)],
)  # fmt: skip
def test_the_tests_are_met_where_each_passed(last, met, measure, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "tests.txt").write_text(f"....\n{last}\n")
    (line,) = measure.tests_lines(measure.Asked(tmp_path, tmp_path / "out", "cuda"))
    assert (line.measured, line.met) == (last, met)
