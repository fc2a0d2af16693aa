from pathlib import Path
from typing import Any

from localearn.errors import UserError
from localearn.extras import optional
from localearn.training.callbacks import Callback, Context


class TensorBoard(Callback):
    """Writes each epoch's figures as TensorBoard events into the run's folder, over passes."""

    def __init__(self, folder: Path | None):
        if folder is None:
            raise UserError("log=tensorboard needs a folder to write to; give out=DIR")
        written = optional("torch.utils.tensorboard.writer", "log=tensorboard", "tensorboard")
        self._folder, self._writer_class = folder / "tensorboard", written.SummaryWriter
        self._writer: Any = None

    def epoch_ended(self, context: Context) -> None:
        """Write the epoch's figures at its number of passes."""
        if self._writer is None:
            self._writer = self._writer_class(str(self._folder))
        for name, value in context.line.items():
            if isinstance(value, float) and name != "passes":
                self._writer.add_scalar(name, value, int(context.line["passes"]))

    def run_ended(self, context: Context) -> None:
        """Flush and close the events file."""
        if self._writer is not None:
            self._writer.close()
