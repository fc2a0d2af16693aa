import errno
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from localearn.data import files
from localearn.errors import UserError

ARRAYS = {"a": np.arange(300), "b": np.ones((2, 3), np.uint8)}


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "new" / "folder" / "set.npz"
    files.write(path, ARRAYS)
    read = files.read(path, ["b", "a"])
    assert list(read) == ["b", "a"]
    assert all(np.array_equal(read[name], ARRAYS[name]) and read[name].dtype == ARRAYS[name].dtype for name in ARRAYS)
    assert os.listdir(path.parent) == ["set.npz"]


def test_a_missing_path_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(UserError, match=r"no\.npz does not exist"):
        files.read(tmp_path / "no.npz", ["a"])
    with pytest.raises(UserError, match="is not a file; an npz archive is expected"):
        files.read(tmp_path, ["a"])


def test_missing_arrays_are_named_with_what_is_there(tmp_path):
    path = tmp_path / "set.npz"
    files.write(path, ARRAYS)
    with pytest.raises(UserError, match=r"set\.npz lacks c, d; it holds a, b$"):
        files.read(path, ["a", "c", "d"])


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, fraction):
    path = tmp_path / "set.npz"
    files.write(path, ARRAYS)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(UserError, match=r"set\.npz cannot be read as an npz archive; it is cut short"):
        files.read(path, ["a"])


def test_a_flipped_bit_in_the_values_is_noticed(tmp_path):
    path = tmp_path / "set.npz"
    files.write(path, ARRAYS)
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(300).tobytes()) + 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        files.read(path, ["a"])


def test_other_kinds_of_file_are_refused(tmp_path):
    plain = io.BytesIO()
    np.save(plain, np.arange(3))
    for content in (b"hello, world", plain.getvalue()):
        path = tmp_path / "set.npz"
        path.write_bytes(content)
        with pytest.raises(UserError, match="another kind of file"):
            files.read(path, ["a"])


def test_an_array_larger_than_the_memory_is_refused_before_it_is_made(tmp_path):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, a=np.zeros(1000), b=np.zeros(1000))
    assert len(files.read(path, ["a"], memory_bytes=12_000)["a"]) == 1000
    with pytest.raises(UserError, match=r"set\.npz: b unpacks to .* GiB, .* this machine has .* of memory"):
        files.read(path, ["a", "b"], memory_bytes=12_000)


@pytest.mark.parametrize("shape", [(10**15,), (5,), (0, 3)])
def test_a_header_that_tells_of_another_size_is_refused(tmp_path, shape):
    path = tmp_path / "set.npz"
    member = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)
    member.write(bytes(4))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", member.getvalue())
    with pytest.raises(UserError, match=r"a holds 4 bytes of values, and its header declares"):
        files.read(path, ["a"])


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "set.npz"
    trap = np.empty(1, dtype=object)
    trap[0] = Trap(tmp_path / "sprung")
    np.savez(path, a=trap)
    with pytest.raises(UserError, match="holds arrays of Python objects"):
        files.read(path, ["a"])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no /dev/full")
def test_a_failed_write_leaves_nothing_and_spoils_nothing(tmp_path):
    path = tmp_path / "set.npz"
    files.write(path, ARRAYS)
    # The disk is full where the new one is written first, under another name.
    (tmp_path / f".set.npz.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*set\.npz: No space left on device"):
        files.store(path, {"a": np.zeros(3)})
    assert os.listdir(tmp_path) == ["set.npz"]
    assert np.array_equal(files.read(path, ["a"])["a"], ARRAYS["a"])


def test_a_folder_marked_read_only_is_left_as_it_is(tmp_path):
    tmp_path.chmod(0o555)
    try:
        files.store(tmp_path / "set.npz", ARRAYS)
        assert os.listdir(tmp_path) == []
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_read_only_medium_is_no_error(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(files, "write", refuse)
    files.store(tmp_path / "set.npz", ARRAYS)
    assert os.listdir(tmp_path) == []
