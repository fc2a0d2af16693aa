from pathlib import Path
from typing import Any

from localearn.errors import UserError


class TensorBoard:
    """Writes each epoch's figures as TensorBoard events into the run's folder, over passes (a `progress.Progress`)."""

    def __init__(self, folder: Path | None):
        if folder is None:
            raise UserError("log=tensorboard needs a folder to write to; give out=DIR")
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise UserError("log=tensorboard needs the package: pip install tensorboard") from None
        self._folder, self._writer_class = folder / "tensorboard", SummaryWriter
        self._writer: Any = None

    def start(self, stage: str, epochs: int, batches: int, done: int) -> None:
        """Write nothing."""

    def batch(self) -> None:
        """Write nothing."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Write the epoch's figures at its number of passes; what an earlier part wrote from there on is dropped."""
        passes = int(line["passes"])
        if self._writer is None:
            self._writer = self._writer_class(str(self._folder), purge_step=passes if passes > 1 else None)
        for name, value in line.items():
            if isinstance(value, float) and name != "passes":
                self._writer.add_scalar(name, value, passes)

    def close(self) -> None:
        """Flush and close the events file."""
        if self._writer is not None:
            self._writer.close()
