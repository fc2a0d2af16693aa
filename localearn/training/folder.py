"""A run's folder: config.yaml, run.json, metrics.jsonl, checkpoint.pt, net.safetensors."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from localearn.errors import UserError


class RunFolder:
    """Reads and writes a run's files, each atomically: a reader, or a run resumed after a SIGKILL, sees a whole file."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint.pt"
        self.config = self.path / "config.yaml"
        self.net = self.path / "net.safetensors"

    def create(self) -> None:
        """Make the folder for a new run; raise UserError if it holds one already or cannot be written."""
        if self.record.exists() or self.checkpoint.exists():
            status = self.status()
            hint = "give another out=" if status == "completed" else f"go on with resume={self.path}, or give another out="
            raise UserError(f"{self.path} already holds a run ({status}), and a run is never overwritten; {hint}")
        with self._writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".probe"
            probe.write_bytes(b"")
            probe.unlink()

    def open(self) -> None:
        """Check that the folder holds a run to go on with; raise UserError if not."""
        if not self.path.is_dir():
            raise UserError(f"resume={self.path}: there is no such folder")
        if self.status() == "completed":
            raise UserError(f"resume={self.path}: that run is completed; start a new one with another out=")
        if not self.config.exists():
            raise UserError(f"resume={self.path}: there is no config.yaml, so that is no run's folder")

    def status(self) -> str:
        """Return the status in run.json; "unfinished" where none was written, as after a SIGKILL."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return str(json.loads(self.record.read_text()).get("status"))
        return "unfinished"

    def write_text(self, path: Path, text: str) -> None:
        """Write a text file atomically."""
        with self._replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl, a line for each epoch."""
        self.write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in lines))

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append an epoch's line to metrics.jsonl."""
        with self._writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write checkpoint.pt atomically: tensors and plain values only."""
        with self._replacing(self.checkpoint) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # torch's archive writer turns a full disk into one
                raise OSError(str(error).splitlines()[0]) from error

    def load_checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """Return what `save_checkpoint` wrote, or None where there is none; without unpickling code."""
        if not self.checkpoint.exists():
            return None
        try:
            return torch.load(self.checkpoint, map_location=device, weights_only=True)
        except Exception as error:  # torch.load has no one type for a file that is not a checkpoint
            raise UserError(f"{self.checkpoint} cannot be read as a checkpoint: {str(error).splitlines()[0]}") from error

    def save_net(self, net: nn.Module, metadata: dict[str, str]) -> None:
        """Write the trained net's weights as net.safetensors."""
        from safetensors.torch import save_file

        with self._replacing(self.net) as temporary:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
            save_file(tensors, temporary, metadata=metadata)

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
                temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = "; the last checkpoint is kept" if self.checkpoint.exists() else ""
            raise UserError(f"cannot write {path}: {error.strerror or error}{kept}") from error
