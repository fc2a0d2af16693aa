"""Errors that the user can fix.

Every command prints a `UserError` as it is, without a traceback, and exits with status 2. So its message says, in one
or two lines, what is wrong, where, and what would work.
"""

import difflib
import warnings
from collections.abc import Iterable


class UserError(Exception):
    """An error that the user can fix: a wrong name, a missing file, options that contradict each other.

    Attributes:
        args: The lines of the message, as they were passed to the constructor. A line break inside one is part of, say,
            a file's name, and no command prints it as a line break.
        print_on_this_rank: Whether the command of this process prints it; False on the ranks of a distributed run that
            raise an error which another rank prints.

    """

    print_on_this_rank = True

    def __str__(self) -> str:
        """Return the lines, joined by line breaks."""
        return "\n".join(map(str, self.args))

    @property
    def tell(self) -> bool:
        """Return `print_on_this_rank`; deprecated, and removed in the next release."""
        warnings.warn("UserError.tell is deprecated: use print_on_this_rank", FutureWarning, stacklevel=2)
        return self.print_on_this_rank

    @tell.setter
    def tell(self, value: bool) -> None:
        warnings.warn("UserError.tell is deprecated: use print_on_this_rank", FutureWarning, stacklevel=2)
        self.print_on_this_rank = value


class Unsupported(UserError):
    """An error for a rule that does not support a net or data; the message names both, and what would work."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, or an empty string where none is near.

    Args:
        name: The unknown name.
        known: The known names.

    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
