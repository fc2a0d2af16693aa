from pathlib import Path
from typing import Any

from localearn.errors import UserError


class TensorBoard:
    """Writes each epoch's figures as TensorBoard events into the run's folder, over passes (see `progress.Progress`)."""

    def __init__(self, folder: Path | None):
        if folder is None:
            raise UserError("log=tensorboard needs a folder to write to; give out=DIR")
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise UserError("log=tensorboard needs the package: pip install tensorboard") from None
        self._open = lambda purge: SummaryWriter(str(folder / "tensorboard"), purge_step=purge)
        self._writer: Any = None

    def start(self, stage: str, epochs: int, batches: int, done: int) -> None:
        """Open the events file at the first stage; what an earlier part wrote past its checkpoint is dropped."""
        if self._writer is None:
            self._writer = self._open(done + 1 if done else None)

    def batch(self) -> None:
        """Write nothing."""

    def epoch(self, line: dict[str, Any]) -> None:
        """Write the epoch's figures at its number of passes."""
        for name, value in line.items():
            if isinstance(value, float) and name != "passes":
                self._writer.add_scalar(name, value, int(line["passes"]))

    def close(self) -> None:
        """Flush and close the events file."""
        if self._writer is not None:
            self._writer.close()
