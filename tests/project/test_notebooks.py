"""Every notebook runs from its first cell to its last, and what is committed of it shows what it gave."""

import re
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ["comparing_rules_fairly", "first_steps", "what_crosses_blocks", "writing_a_rule"]


def read(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nbformat
    return nbformat.read(FOLDER / f"{name}.ipynb", 4)


def test_each_is_listed():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_was_run_in_order_and_has_pictures_and_no_paths(name):
    book = read(name)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert all(output.output_type in ("stream", "display_data", "execute_result") for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs), "a warning is no part of a notebook"
    said = [output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    assert not re.search(r"(/tmp|/home|/root|/usr|/Users|[A-Z]:\\)", " ".join(said))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's own messaging
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.setenv("LOCALEARN_DATA", str(tmp_path / "data"))
    book = read(name)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(book, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert sum("image/png" in o.get("data", {}) for cell in book.cells for o in cell.get("outputs", ())) >= 2
