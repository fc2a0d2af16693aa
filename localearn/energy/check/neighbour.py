"""A second process that loads a card: `python -m localearn.energy.check.neighbour cuda:0`, until its input ends."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

START_LIMIT_S = 120.0
READY = "ready"


@contextmanager
def loaded_by_another(device: str, python: str = sys.executable) -> Iterator[None]:
    """Have a second process load the device for the while. Raises ChildProcessError where it does not start.

    python: the interpreter that it runs in.
    """
    command = [python, "-m", "localearn.energy.check.neighbour", device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        limit = threading.Timer(START_LIMIT_S, process.kill)
        limit.start()
        try:
            if process.stdout.readline().strip() != READY:
                raise ChildProcessError(f"the second process did not come to load {device}")
            limit.cancel()
            yield
        finally:
            limit.cancel()
            process.stdin.close()
            process.wait()


def main(device: str, until: IO[str]) -> None:
    """Load the device until a stream ends."""
    import torch

    from localearn.energy.check.load import MatrixLoad

    load = MatrixLoad(torch.device(device))
    ended = threading.Event()

    def wait_for_end() -> None:
        until.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    print(READY, flush=True)
    while not ended.is_set():
        load.burst()
    load.finish()


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin)
