"""YAML and JSON from anybody: a value, or one line that names the file; never a traceback, nor a wait."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

import localearn
from localearn.cli import compare, report, run, study, tune
from localearn.cli.errors import run_command
from localearn.errors import UserError
from localearn.files import atomic_write, read_json, read_yaml, replace_bytes, replace_text
from tests.marks import posix, slow_but

TINY = ["dataset=digits", "dataset.train_size=60", "net.widths=[8]", "progress=false", "energy.enabled=false"]
BAD = {
    "a byte-order mark": lambda content: b"\xef\xbb\xbf" + content,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "bytes that are no UTF-8": lambda content: content[: len(content) // 2] + b"\xff\xfe\x80",
    "nothing": lambda content: b"",
    "null": lambda content: b"null\n",
    "a list": lambda content: b"[1]\n",
    "half of it": lambda content: content[: len(content) // 2],
    "brackets without end": lambda content: b"[" * 100_000,
    "aliases": lambda content: b"a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "a null byte": lambda content: content + b"\0",
}
CHANGES = {**BAD, "a pipe": None, "a folder": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a search, a comparison and a study."""
    top = tmp_path_factory.mktemp("made")
    here = os.getcwd()
    os.chdir(top)
    try:
        assert run_command(tune.main, ["algo=mono_forward", *TINY, "epochs=1", "trials=1", "out=search"]) == 0
        assert run_command(compare.main, COMPARE) == 0
        Path("rows").mkdir()
        row = {"title": "t", "source": "s", "run": ["algo=mono_forward", *TINY, "epochs=1"], "seeds": [0]}
        Path("rows/a.yaml").write_text(json.dumps(row))
        assert run_command(study.main, ["rows", "out=studied"]) == 0
    finally:
        os.chdir(here)
    return top


COMPARE = [
    "algos=[mono_forward]",
    "seeds=[0]",
    "protocols=[matched]",
    "warm_up=false",
    *TINY,
    "epochs=1",
    "out=compared",
]
COMMANDS = {
    "search/best.yaml": (run.main, ["config=search/best.yaml", "out=again"]),
    "search/tune.json": (report.main, ["search"]),
    "search/trials/0000/run.json": (tune.main, ["algo=mono_forward", *TINY, "epochs=1", "trials=1", "out=search"]),
    "compared/report.json": (report.main, ["compared"]),
    "compared/runs/matched-mono_forward-0/run.json": (report.main, ["compared", "out=other"]),
    "compared/runs/matched-mono_forward-0/metrics.jsonl": (report.main, ["compared", "out=other"]),
    "compared/runs/matched-mono_forward-0/config.yaml": (compare.main, COMPARE),
    "rows/a.yaml": (study.main, ["rows", "out=studied"]),
    "studied/runs/a-0/run.json": (study.main, ["rows", "out=studied"]),
    "studied/runs/a-0/config.yaml": (study.main, ["rows", "out=studied"]),
}


@pytest.mark.parametrize("kind", slow_but(CHANGES, "UTF-16", "half of it", "a folder"))
@pytest.mark.parametrize("name", COMMANDS)
@posix
def test_every_command_tells_what_is_wrong_with_a_file_in_a_line(name, kind, made, tmp_path, monkeypatch, capsys):
    command, arguments = COMMANDS[name]
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    path, change = Path(name), CHANGES[kind]
    good = path.read_bytes()
    path.unlink()
    if change is None:
        os.mkfifo(path) if kind == "a pipe" else path.mkdir()
    else:
        path.write_bytes(change(good))
    began = time.monotonic()
    status = run_command(command, arguments)  # which lets a traceback through
    assert status in (0, 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (status == 2)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "kind", [kind for kind in BAD if kind not in ("a byte-order mark", "nothing", "null", "a list")]
)
def test_the_readers_name_the_file(kind, tmp_path):
    for name, reader, good in (("a.yaml", read_yaml, b"a: 1\nb: {c: 2}\n"), ("a.json", read_json, b'{"a": 1}')):
        path = tmp_path / name
        path.write_bytes(BAD[kind](good))
        if kind == "half of it" and name == "a.yaml":
            continue
        with pytest.raises(UserError, match=name):
            reader(path)


def test_what_is_right_is_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1e-5\nb: ['${a}', x]\nc: null\n")
    assert read_yaml(path) == {"a": 1e-5, "b": ["${a}", "x"], "c": None}
    path.write_bytes(b"")
    assert read_yaml(path) == {}
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    path.write_bytes(b"a: " + b"x" * 2**20)
    with pytest.raises(UserError, match="more than 1 MiB"):
        read_yaml(path)


def test_a_study_leaves_out_a_record_that_is_none(made, tmp_path, monkeypatch, capsys):
    shutil.rmtree(tmp_path)
    shutil.copytree(made, tmp_path)
    monkeypatch.chdir(tmp_path)
    path = Path("studied/runs/a-0/run.json")
    record = json.loads(path.read_text())
    wrong = [record["metrics"] | {"accuracy": record["metrics"]["accuracy"] | {"test": test}} for test in ("x", None)]
    for change in ({"metrics": wrong[0]}, {"metrics": wrong[1]}, {"metrics": {}}, {"seed": "a"}):
        path.write_text(json.dumps(record | change))
        assert run_command(study.main, ["rows", "out=studied"]) == 0
        assert "left out of the table" in capsys.readouterr().err


def test_a_file_is_replaced_as_a_whole_and_nothing_beside_it_is_left(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == tmp_path
            assert not path.exists() if text == "first" else path.read_text() == "first"
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_written_to_its_end_is_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("as it was")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    with pytest.raises(NotADirectoryError), atomic_write(path / "b.txt") as temporary:
        temporary.write_text("nowhere")
    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_text_and_bytes_are_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    replace_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    replace_bytes(path, b"\x89PNG")
    assert path.read_bytes() == b"\x89PNG" and list(tmp_path.iterdir()) == [path]


# Of each module that writes a file without `atomic_write`, how often.
WRITTEN_IN_PLACE = {
    "benching/parallel.py": 1,  # in a temporary folder, read once the writer has ended
    "benching/rank.py": 1,  # the same
    "data/npz_graphs.py": 1,  # downloads into a temporary folder
    "data/planetoid.py": 1,  # the same
    "exporting.py": 2,  # a file that must not exist, and is removed where its outputs are not the net's
    "grid.py": 1,  # a command's log
    "records/folder.py": 1,  # an empty file, to try the folder
    "training/memory.py": 1,  # /proc
}


def test_what_a_reader_could_find_half_written_goes_through_atomic_write():
    writing = re.compile(r"\.(write_text|write_bytes|savefig|save)\(|open\([^)]*[\"']w")
    whole = re.compile(
        r"temporary|[fF]older(\(.*\))?\.write_|self\.write_text|torch\.save|savefig\((png|svg),"
    )  # in memory
    package = Path(localearn.__file__).parent
    found = {}
    for path in package.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        count = sum(bool(writing.search(line) and not whole.search(line)) for line in lines)
        found |= {path.relative_to(package).as_posix(): count} if count else {}
    assert found == WRITTEN_IN_PLACE
