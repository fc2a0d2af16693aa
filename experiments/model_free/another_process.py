"""Train between systems that answer from a process of their own, over pipes.

    python experiments/model_free/another_process.py [epochs=10] [out=DIR]

Each of two blocks asks a child of its own, `instrument.py`. `Remote` is all that a net needs to know of it: a callable
from rows to an array. Where the child ends, hangs (beyond `timeout_s`) or answers with another shape, the run stops
with an error that names the block, and goes on from its last checkpoint by `resume=True`, with a new child.
"""

import contextlib
import subprocess
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from localearn.cli.errors import run_command
from localearn.cli.options import Options, option, read

INSTRUMENT = Path(__file__).with_name("instrument.py")
HEADER = 16  # bytes: rows and columns


class Remote:
    """A system in another process: rows (N, n) go to its stdin and their answers, (N, m), come from its stdout.

    The process is started by the first question, and anew by the one after a question that was never answered: a late
    answer must not be taken for that to another question. Questions and answers are raw numbers, see `instrument.py`,
    so that nothing of what comes back is run.
    """

    def __init__(self, command: list[str]):
        self.command = command
        self.process: Any = None  # a Popen, while there is one
        self._asking = False

    def __call__(self, u: Tensor) -> np.ndarray:
        """Return the answer to rows u, (N, n); OSError where the process ends, ValueError where it makes no sense."""
        if self._asking:
            self.close()
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            weakref.finalize(self, _end, self.process)
        process, self._asking = self.process, True
        try:
            try:
                process.stdin.write(np.array(u.shape, "<i8").tobytes() + u.cpu().numpy().astype("<f4").tobytes())
                process.stdin.flush()
            except BrokenPipeError:  # it ended before the question had been written, or after: who is first is chance
                raise _ended(process) from None
            rows, columns = (int(side) for side in np.frombuffer(_read(process, HEADER), "<i8"))
            if rows != len(u) or not 0 < columns < 2**20:  # before so much is waited for
                raise ValueError(f"the answer to {len(u)} rows says that it is of shape ({rows}, {columns})")
            y = np.frombuffer(_read(process, 4 * rows * columns), "<f4").reshape(rows, columns)
        except (OSError, ValueError):
            _end(process)
            if self.process is process:  # and not that of a later question, while this one was left behind
                self.process, self._asking = None, False
            raise
        self._asking = False
        return y.copy()  # a buffer that was read is not to be written to

    def close(self) -> None:
        """End the process."""
        process, self.process, self._asking = self.process, None, False
        if process is not None:
            _end(process)


def _read(process: Any, count: int) -> bytes:
    found = process.stdout.read(count)
    if len(found) < count:
        raise _ended(process)
    return found


def _ended(process: Any) -> OSError:
    return OSError(f"process {process.pid} has ended, with status {process.wait()}")


def _end(process: Any) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError, ValueError):  # what was never sent, or is still read by who was left behind
            pipe.close()


def instrument(measured: int, seed: int) -> Remote:
    """Return the system of `instrument.py`."""
    return Remote([sys.executable, str(INSTRUMENT), f"measured={measured}", f"seed={seed}"])


@dataclass(frozen=True)
class ProcessOptions(Options):
    """The options of the experiment."""

    epochs: int = option(10, "of training")
    out: Path | None = option(None, "the run's folder")


def main(arguments: list[str]) -> int:
    """Train on the digits and say how well."""
    import torch

    from localearn import ModelFree, Physical, load

    options = read(ProcessOptions, arguments)
    torch.manual_seed(0)
    systems = [instrument(measured=128, seed=seed) for seed in (0, 1)]
    net = Physical((1, 8, 8), 10, widths=(64, 64), system=systems, timeout_s=60)
    record = ModelFree(net).fit(load("digits"), epochs=options.epochs, out=options.out)
    print(f"test accuracy {record.test_accuracy:.1%}, in {record.train_s:.1f} s of training")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
