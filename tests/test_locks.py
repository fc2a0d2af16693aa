import errno
import os

import filelock
import pytest

from localearn.errors import UserError
from localearn.locks import Held, locked
from localearn.records.folder import RunFolder
from localearn.tuning.search import _abandoned


def failing(monkeypatch, number):
    def fails(self, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", fails)


def test_one_holds_and_no_other(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path, wait=False) as held:
        assert held
        with pytest.raises(Held), locked(path, wait=False):
            pass
    assert not path.exists()
    with locked(path, wait=True) as held:
        assert held


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_nothing_is_held_and_nobody_taken_for_dead(tmp_path, monkeypatch, number):
    (tmp_path / "0000.lock").touch()
    assert _abandoned(tmp_path / "0000")
    (tmp_path / "0000.lock").touch()
    failing(monkeypatch, number)
    with locked(tmp_path / "a.lock", wait=False) as held:
        assert not held
    assert not _abandoned(tmp_path / "0000")


def test_a_folder_where_no_lock_can_be_made_is_told(tmp_path, monkeypatch):
    failing(monkeypatch, errno.EROFS)
    with pytest.raises(UserError, match="Read-only file system"), RunFolder(tmp_path).held():
        pass
