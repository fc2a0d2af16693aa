"""Run a command: print its errors in a line or two, and set its exit status."""

import errno
import gc
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from localearn.allocator import keep_freed_memory
from localearn.errors import UserError
from localearn.moved import former_names
from localearn.printing import say

Command = Callable[[list[str]], int]


def run_command(command: Command, argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 2 and a line or two for what the user can mend, 130 after Ctrl-C.

    Args:
        command: The command.
        argv: Its arguments; None is those of the process.

    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal's encoding lacks is shown by its number
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = run_reporting_errors(lambda: command(_readable(arguments)), arguments)
        if sys.stdout is not None:  # as where it is closed: >&-
            sys.stdout.flush()  # here, and not at exit, where an error would be a traceback
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it, so an error message would not arrive either
        drop_output()
        return 141
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        drop_output()
        try:
            say(f"error: the output cannot be written: {error.strerror}", error=True)
        except OSError:  # it is the error stream that cannot be written
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        return 2
    return status


def drop_output() -> None:
    """Send what is still printed nowhere, after an error in printing it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _readable(arguments: list[str]) -> list[str]:
    """Return the arguments; raise UserError for one that is no text in the encoding of the locale."""
    for argument in arguments:
        if not argument.isascii() and any("\ud800" <= character <= "\udfff" for character in argument):
            raise UserError(
                f"{argument} is no text in {sys.getfilesystemencoding()}; set LANG=C.UTF-8, or PYTHONUTF8=1"
            )
    return arguments


def leave(status: int) -> NoReturn:
    """End the process with this status, as `sys.exit` does, but faster.

    At exit the interpreter searches all objects for reference cycles, several times: with torch's modules it took 1.7
    to 2.4 s, as long as a small run. Objects that `gc.freeze` sets aside are skipped, and all else happens as usual.
    """
    gc.freeze()
    sys.exit(status)


def run_reporting_errors(work: Callable[[], int], arguments: Sequence[str]) -> int:
    """Return the result of `work`, or 2 after an error message; debug=true shows the traceback.

    Args:
        work: The command, which returns its exit status.
        arguments: Those of the command line, in which debug=true is looked up.

    """
    try:
        return work()
    except UserError as error:
        if re.fullmatch("true|1|yes|on", value_of("debug", arguments) or "", re.IGNORECASE):
            traceback.print_exc()
        rank = os.environ.get("RANK", "0")  # of the processes that torchrun starts
        if error.print_on_this_rank:
            first, *rest = error.args or ("",)
            say(f"error: {first}" if rank == "0" else f"error on rank {rank}: {first}", error=True)
            for line in rest:
                say(line, error=True)
        return 2


def value_of(key: str, arguments: Sequence[str]) -> str | None:
    """Return the value of the last `key=value` among the arguments, unquoted, None where there is none."""
    values = [value for name, equals, value in (a.partition("=") for a in arguments) if equals and name == key]
    if not values or values[-1].lower() == "null":
        return None
    value = values[-1]
    value = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    if not value:
        raise UserError(f"{key}= has no value")
    return value


if not TYPE_CHECKING:  # which would find every name here
    __getattr__ = former_names(__name__)
