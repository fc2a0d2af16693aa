"""Run a command: print its errors in a line or two, and set its exit status."""

import gc
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from localearn.allocator import keep_freed_memory
from localearn.errors import UserError
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
    try:
        return told(lambda: command(arguments), arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it, so an error message would not arrive either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def leave(status: int) -> NoReturn:
    """End the process with this status, as `sys.exit` does, but faster.

    At exit the interpreter searches all objects for reference cycles, several times: with torch's modules it took 1.7
    to 2.4 s, as long as a small run. Objects that `gc.freeze` sets aside are skipped, and all else happens as usual.
    """
    gc.freeze()
    sys.exit(status)


def told(work: Callable[[], int], arguments: Sequence[str]) -> int:
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
    if not values[-1]:
        raise UserError(f"{key}= has no value")
    value = values[-1]
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
