"""Errors that the user can mend.

Every command prints a `UserError` as it is, without a traceback, and exits with status 2. So its message says, in one
or two lines, what is wrong, where, and what would work.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can mend: a wrong name, a missing file, options that contradict each other.

    Attributes:
        args: The lines of the message, as they were passed to the constructor. A line break inside one is part of, say,
            somebody's file name, and no command prints it as a line break.
        tell: Whether a command prints it; False in those of several processes that share an error which another one
            prints.

    """

    tell = True

    def __str__(self) -> str:
        """Return the lines, joined by line breaks."""
        return "\n".join(map(str, self.args))


class Unsupported(UserError):
    """An error for a rule that does not support this net or these data; the message names both and what would work."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, or an empty string where none is near.

    Args:
        name: The unknown name.
        known: The known names.

    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
