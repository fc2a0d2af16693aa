"""A run's folder: config.yaml, run.json, metrics.jsonl, checkpoint.pt and the one before it, net.safetensors.

Its files are written atomically, under a lock, and the binary ones carry checksums.
"""

import contextlib
import errno
import glob
import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.files import atomic_write, read_json
from localearn.moved import Renamed, former_names
from localearn.printing import say

_MARK = b"\nlocalearn-sha256 "  # after a checkpoint's archive, whose readers search for its end backwards
_LENGTH = len(_MARK) + 64
_CHUNK = 1 << 20
DONE = ("completed", "diverged", "stopped")  # the statuses of runs that are not resumed
# The errors of a file system without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class RunFolder:
    """Read and write a run's files, each atomically: a reader, or a run resumed after SIGKILL, sees a whole file.

    Args:
        path: the folder, which may not be there yet.

    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint.pt"
        self.previous = self.path / "checkpoint.previous.pt"
        self.config = self.path / "config.yaml"
        self.net = self.path / "net.safetensors"

    def create(self) -> None:
        """Make the folder for a new run.

        Raises:
            UserError: when it holds a run already or cannot be written.

        """
        if "\0" in str(self.path):  # which Python 3.14 takes for a name of nothing until it is made
            raise UserError(f"out={self.path} has a null byte, which no name has; name a new folder")
        if any(self._exists(path) for path in (self.record, self.checkpoint, self.previous)):
            raise UserError(
                f"{self.path} already holds a run ({self.status()}), and none is ever overwritten; give another out=, "
                f"or go on with one that is not completed by resume={self.path}"
            )
        if self._exists(self.path) and not self.path.is_dir():
            raise UserError(f"out={self.path} is no folder; name a new one, or one that holds no run")
        with self._writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".probe"
            probe.write_bytes(b"")
            probe.unlink()

    def open(self, *, extending: bool = False) -> None:
        """Check that the folder holds a run that can be resumed.

        Args:
            extending: whether a completed run is to be trained longer.

        Raises:
            UserError: when it does not.

        """
        if not self._exists(self.path) or not self.path.is_dir():
            raise UserError(f"resume={self.path}: there is no such folder")
        if self.status() == "completed" and not extending:
            raise UserError(
                f"resume={self.path}: that run is completed; give epochs=N to train it longer, or start a new one with "
                "another out="
            )
        check_regular(self.config)
        if not self.config.exists():
            raise UserError(f"resume={self.path}: there is no config.yaml, so that is no run's folder")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder against other processes while the block runs.

        The system releases the lock of a killed process. A file system without locks is written without.

        Raises:
            UserError: when another process holds the lock.

        """
        with contextlib.ExitStack() as stack:
            try:
                with self._writing(self.path):
                    stack.enter_context(locked(self.path / ".lock", wait=False))
            except LockedError:
                raise UserError(f"another process is writing {self.path}; wait for it, or give another out=") from None
            yield

    held = Renamed("lock")

    def status(self) -> str:
        """Return the status in run.json; "unfinished" where none was written, as after a SIGKILL."""
        with contextlib.suppress(UserError):
            return str(read_json(self.record).get("status"))
        return "unfinished"

    def is_finished(self) -> bool:
        """Return whether the folder holds a run that is not resumed: completed, diverged or stopped."""
        return self.status() in DONE

    def drop_weights(self) -> None:
        """Remove a finished run's weights and checkpoints: a study, or a search, only needs records."""
        if self.is_finished():
            for path in (self.checkpoint, self.previous, self.net):
                path.unlink(missing_ok=True)

    def unfinish(self) -> None:
        """Mark a completed run, which is about to be trained longer, as one that can be resumed."""
        if self.status() == "completed":
            record = read_json(self.record)
            self.write_text(self.record, json.dumps(record | {"status": "unfinished"}, indent=2) + "\n")

    def write_text(self, path: Path, text: str) -> None:
        """Write a text file atomically.

        Args:
            path: the file.
            text: its content, written in UTF-8.

        Raises:
            UserError: when it cannot be written.

        """
        with self._replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl, a line for each epoch.

        Args:
            lines: each epoch's figures by name.

        """
        self.write_text(self.metrics, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a file atomically.

        Args:
            path: the file.
            content: its bytes.

        Raises:
            UserError: when it cannot be written.

        """
        with self._replacing(path) as temporary:
            temporary.write_bytes(content)

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append an epoch's line to metrics.jsonl.

        Args:
            line: its figures by name.

        """
        with self._writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write checkpoint.pt atomically; the one before it stays, as `previous`.

        Args:
            state: tensors and plain values only.

        Raises:
            UserError: when it cannot be written.

        """
        with self._replacing(self.checkpoint) as temporary:
            with temporary.open("wb") as file:
                try:
                    torch.save(state, file)
                except RuntimeError as error:  # what torch's archive writer makes of a full disk
                    cause = error.__context__
                    raise cause if isinstance(cause, OSError) else OSError(str(error).splitlines()[0]) from error
            append_checksum(temporary)
            if self.checkpoint.exists():
                self._link(self.checkpoint, self.previous)

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state that `save_checkpoint` wrote last, or None where there is none; without unpickling code.

        Where the last one is damaged, the one before it is returned, with a warning on stderr.

        Args:
            device: where the tensors are put.

        Raises:
            UserError: when both are damaged.

        """
        damage = None
        for path in (self.checkpoint, self.previous):
            if not self._exists(path):
                continue
            try:
                state = _read_checkpoint(path, device)
            except UserError as error:
                damage = damage or error
                continue
            if damage is not None:
                say(f"{damage}; the run goes on from the checkpoint before it, {path.name}", error=True)
            return state
        if damage is not None:
            raise damage
        return None

    def clear_temporary(self) -> None:
        """Remove the half-written files of killed runs; only under the folder's lock."""
        for path in (self.record, self.metrics, self.checkpoint, self.previous, self.config, self.net):
            for left in self.path.glob(f".{glob.escape(path.name)}.*.tmp"):
                with contextlib.suppress(OSError):
                    left.unlink()

    def save_net(self, net: nn.Module, metadata: dict[str, str], weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the trained net's weights as net.safetensors; a weight that layers share is written for each.

        Args:
            net: whose state is written.
            metadata: texts; what `localearn` holds, a JSON object, gets the checksum of itself and of the weights.
            weights: the net's state under other names than its own, which the metadata's `names` then say.

        Raises:
            UserError: when it cannot be written.

        """
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        written: set[int] = set()
        for name, tensor in (net.state_dict() if weights is None else weights).items():
            own = tensor.detach().cpu().contiguous()
            memory = own.untyped_storage().data_ptr()
            tensors[name] = own.clone() if memory in written else own  # the format refuses tensors that share memory
            written.add(memory)
        described = json.loads(metadata.get("localearn", "{}"))
        described["sha256"] = digest_of(tensors, described)
        metadata = metadata | {"localearn": json.dumps(described)}
        with self._replacing(self.net) as temporary:
            temporary.write_bytes(save(tensors, metadata=metadata))

    @contextlib.contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        with self._writing(path), atomic_write(path) as temporary:
            yield temporary

    def _link(self, path: Path, name: Path) -> None:
        """Give a file a second name, so that it is there under one of them at every moment."""
        link = name.with_name(f".{name.name}.{os.getpid()}.tmp")
        try:
            os.link(path, link)
        except OSError:  # a file system without hard links
            path.replace(name)
        else:
            link.replace(name)

    def _exists(self, path: Path) -> bool:
        with self._writing(path):  # a name too long, or a folder without permission to list it
            return path.exists()

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            if "null byte" not in str(error):
                raise
            raise UserError(f"cannot write {str(path)!r}: a path holds no null byte") from error
        except OSError as error:
            advice = ""
            with contextlib.suppress(OSError):
                if self.checkpoint.exists():
                    advice = f"; the last checkpoint is kept, go on with resume={self.path}"
            raise UserError(f"cannot write {path}: {error.strerror or error}{advice}") from error


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Return what a checkpoint holds; raise UserError where it is damaged, or something else."""
    check_regular(path)
    try:
        intact = is_intact(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            state = torch.load(path, map_location=device, weights_only=True) if intact else None
    except pickle.UnpicklingError as error:  # of which torch advises to load it all the same, and so to run its code
        raise UserError(
            f"{path} cannot be read as a checkpoint: it is damaged, or holds other than tensors and plain values"
        ) from error
    except Exception as error:  # torch.load has no one type for a file that is not a checkpoint
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not intact:
        raise UserError(f"{path} is damaged: its checksum is not that of its content")
    if not isinstance(state, dict):
        raise UserError(f"{path} cannot be read as a checkpoint: it holds {type(state).__name__}")
    return state


def check_regular(path: Path) -> None:
    """Check that a path is no folder, pipe or device: to read one could wait for ever.

    Args:
        path: what may be there or not.

    Raises:
        UserError: when it is one.

    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no regular file")


class LockedError(Exception):
    """Another process, or another part of this one, holds the lock."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file, which is made and then removed; yield False where the file system has no locks.

    Args:
        path: the file.
        wait: whether to wait for another holder.

    Raises:
        LockedError: when another holds it and `wait` is false.
        OSError: when the file cannot be made.

    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, blocking=wait)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError from None
    except NotImplementedError:
        lock = None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lock = None
    try:
        yield lock is not None
    finally:
        if lock:
            with contextlib.suppress(OSError):  # Windows removes no file that is open
                path.unlink(missing_ok=True)
            lock.release()


def append_checksum(path: Path) -> None:
    """Append the SHA-256 of a file's bytes to it; a zip archive stays readable as one.

    Args:
        path: the file.

    """
    digest = _file_digest(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_MARK + digest.encode())


def is_intact(path: Path) -> bool:
    """Return whether a file's bytes have its checksum; true of one without a checksum, as older versions wrote it.

    Args:
        path: the file.

    """
    size = path.stat().st_size
    if size < _LENGTH:
        return True
    with path.open("rb") as file:
        file.seek(size - _LENGTH)
        end = file.read(_LENGTH)
    if not end.startswith(_MARK):
        return True
    return end.removeprefix(_MARK) == _file_digest(path, size - _LENGTH).encode()


def digest_of(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of named tensors, with their dtypes and shapes, and of plain values.

    Args:
        tensors: by name, of any shape and device.
        values: what JSON can hold.

    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _file_digest(path: Path, size: int) -> str:
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
