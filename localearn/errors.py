"""What can go wrong in a way that the user can mend.

Every door prints a `UserError` as it stands, without a traceback, and exits with status 2. So its message says, in one
or two lines, what is wrong, where, and what would work.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can mend: a wrong name, a missing file, options that contradict each other.

    Each argument is a line; a line break inside one is of somebody's file name, say, and no command prints it as such.
    tell: whether a door prints it; False in those of several processes that share an error which another one tells.
    """

    tell = True

    def __str__(self) -> str:
        """Return the lines."""
        return "\n".join(map(str, self.args))


class Unsupported(UserError):
    """A rule that cannot serve this net or these data; the message names both and what would work."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, or an empty string where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
