import errno
import subprocess
import sys

import filelock
import pytest

from localearn.errors import UserError
from localearn.training.folder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from localearn.training.folder import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def test_a_folder_that_another_process_writes_is_refused_until_it_ends_or_dies(folder):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process is writing"), folder.held():
            pass
    finally:
        other.kill()
        other.communicate()
    with folder.held():
        pass


def test_nothing_of_the_lock_is_left(folder):
    with folder.held(), pytest.raises(UserError, match="another process"), RunFolder(folder.path).held():
        pass
    assert list(folder.path.iterdir()) == []


def test_a_file_system_without_locks_is_written_all_the_same(folder, monkeypatch):
    def fails(self, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", fails)
    with folder.held():
        folder.write_text(folder.config, "a: 1\n")
    assert folder.config.read_text() == "a: 1\n"


def test_an_error_inside_is_passed_on(folder):
    with pytest.raises(ValueError, match="mine"), folder.held():
        raise ValueError("mine")
    with folder.held():
        pass
