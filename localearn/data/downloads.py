"""Downloading of data sets: a temporary folder, a time limit, and the error where nothing can be had."""

import contextlib
import http.client
import io
import socket
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from localearn.errors import UserError
from localearn.printing import log_notes

TIMEOUT_S = 15.0

# No network, a server's refusal, a broken transfer, a broken archive, a file that is not what its name says.
FAILURES = (
    OSError,
    http.client.HTTPException,
    RuntimeError,
    EOFError,
    ValueError,
    tarfile.TarError,
    zipfile.BadZipFile,
)


@contextlib.contextmanager
def downloading(name: str, source: str, data_dir: Path) -> Iterator[None]:
    """Print a line naming what is downloaded from where, and set a time limit for connections opened inside.

    Output of other packages' code inside, progress bars among it, is dropped: why it failed is in its error.

    Args:
        name: the data set.
        source: the host or hosts.
        data_dir: the folder that it is downloaded to.

    """
    log_notes(name, [f"it is not in {data_dir}, and is downloaded from {source}"])
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def download_folder(data_dir: Path) -> Iterator[Path]:
    """Yield a temporary folder in data_dir; where the download fails, no folder that it created is left.

    Args:
        data_dir: the folder of prepared data sets, created where it does not exist.

    """
    missing = [folder for folder in (data_dir, *data_dir.parents) if not folder.exists()]
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as folder:
            yield Path(folder)
    except BaseException:
        with contextlib.suppress(OSError):  # another process has put a file there meanwhile
            for folder in missing:
                folder.rmdir()
        raise


def unavailable(name: str, source: str, looked_for: Iterable[Path], error: BaseException) -> UserError:
    """Return the error for a data set that is neither here nor can be downloaded, with how to provide it.

    Args:
        name: the data set.
        source: the host or hosts that were tried.
        looked_for: the files that were looked for.
        error: why the download failed.

    """
    # torchvision reports each mirror that it tried, a line for its address and a line for its answer.
    reason = ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1].strip()
    files = " and ".join(str(path) for path in looked_for)
    return UserError(
        f"{name} is not here and could not be downloaded from {source} ({reason[:120]}); looked for {files}.",
        f"On a machine with a network, localearn.load({name!r}) prepares {name}.npz in its data_dir: copy that file to "
        f"the first place above, or point data_dir or LOCALEARN_DATA to where it is.",
    )
