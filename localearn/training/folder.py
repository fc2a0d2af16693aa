"""A run's folder: config.yaml, run.json, metrics.jsonl, checkpoint.pt, net.safetensors."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.locks import Held, locked


class RunFolder:
    """Reads and writes a run's files, each atomically: a reader, or a run resumed after SIGKILL, sees a whole file."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint.pt"
        self.config = self.path / "config.yaml"
        self.net = self.path / "net.safetensors"

    def create(self) -> None:
        """Make the folder for a new run; raise UserError if it holds one already or cannot be written."""
        if self._exists(self.record) or self._exists(self.checkpoint):
            raise UserError(
                f"{self.path} already holds a run ({self.status()}), and none is ever overwritten; give another out=, "
                f"or go on with one that is not completed by resume={self.path}"
            )
        with self._writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".probe"
            probe.write_bytes(b"")
            probe.unlink()

    def open(self, *, extending: bool = False) -> None:
        """Check that the folder holds a run to go on with, or one to extend; raise UserError if not."""
        if not self._exists(self.path) or not self.path.is_dir():
            raise UserError(f"resume={self.path}: there is no such folder")
        if self.status() == "completed" and not extending:
            raise UserError(
                f"resume={self.path}: that run is completed; give epochs=N to train it longer, or start a new one with "
                "another out="
            )
        if not self.config.exists():
            raise UserError(f"resume={self.path}: there is no config.yaml, so that is no run's folder")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing the folder meanwhile; raise UserError if one does.

        The system releases what a killed process held. A file system without locks is written without.
        """
        with contextlib.ExitStack() as lock:
            try:
                with self._writing(self.path):
                    lock.enter_context(locked(self.path / ".lock", wait=False))
            except Held:
                raise UserError(f"another process is writing {self.path}; wait for it, or give another out=") from None
            yield

    def status(self) -> str:
        """Return the status in run.json; "unfinished" where none was written, as after a SIGKILL."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return str(json.loads(self.record.read_text()).get("status"))
        return "unfinished"

    def unfinish(self) -> None:
        """Mark a completed run, which is about to be trained longer, as one that can be gone on with."""
        if self.status() == "completed":
            record = json.loads(self.record.read_text(encoding="utf-8"))
            self.write_text(self.record, json.dumps(record | {"status": "unfinished"}, indent=2) + "\n")

    def write_text(self, path: Path, text: str) -> None:
        """Write a text file atomically."""
        with self._replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl, a line for each epoch."""
        self.write_text(self.metrics, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append an epoch's line to metrics.jsonl."""
        with self._writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write checkpoint.pt atomically: tensors and plain values only."""
        with self._replacing(self.checkpoint) as temporary, temporary.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # what torch's archive writer makes of a full disk
                cause = error.__context__
                raise cause if isinstance(cause, OSError) else OSError(str(error).splitlines()[0]) from error

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """Return what `save_checkpoint` wrote, or None where there is none; without unpickling code."""
        if not self.checkpoint.exists():
            return None
        try:
            return torch.load(self.checkpoint, map_location=device, weights_only=True)
        except Exception as error:  # torch.load has no one type for a file that is not a checkpoint
            raise UserError(
                f"{self.checkpoint} cannot be read as a checkpoint: {str(error).splitlines()[0]}"
            ) from error

    def save_net(self, net: nn.Module, metadata: dict[str, str]) -> None:
        """Write the trained net's weights as net.safetensors; a weight that layers share stands there for each."""
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        written: set[int] = set()
        for name, tensor in net.state_dict().items():
            own = tensor.detach().cpu().contiguous()
            memory = own.untyped_storage().data_ptr()
            tensors[name] = own.clone() if memory in written else own  # the format refuses tensors that share memory
            written.add(memory)
        with self._replacing(self.net) as temporary:
            temporary.write_bytes(save(tensors, metadata=metadata))

    @contextlib.contextmanager
    def _replacing(self, path: Path) -> Iterator[Path]:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with self._writing(path):
            try:
                yield temporary
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                with contextlib.suppress(OSError):  # it is not there, or its folder has gone
                    temporary.unlink()

    def _exists(self, path: Path) -> bool:
        with self._writing(path):  # a name too long, or a folder that may not be looked into
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
            kept = ""
            with contextlib.suppress(OSError):
                if self.checkpoint.exists():
                    kept = f"; the last checkpoint is kept, go on with resume={self.path}"
            raise UserError(f"cannot write {path}: {error.strerror or error}{kept}") from error
