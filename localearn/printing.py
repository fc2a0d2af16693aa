"""Print lines in which no name moves the cursor, changes a colour or begins a line of its own."""

import sys
import unicodedata

# Cc: control characters, ANSI escapes begin with one. Cf: formats, bidirectional overrides among them. Cs: lone
# surrogates, which no file can be written with. Zl, Zp: separators that end a line in a browser.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(text: str) -> str:
    r"""Return a text in which each character that is not seen is written out, as \x1b or \u202e; a line break stays."""
    return "".join(
        character.encode("unicode_escape").decode() if _is_hidden(character) else character for character in text
    )


def one_line(text: object) -> str:
    r"""Return what `visible` does, with line breaks written out as \n too."""
    return visible(str(text)).replace("\n", r"\n")


def say(text: object, *, error: bool = False) -> None:
    """Print one line, of anybody's names, on standard output or, of an `error` or a remark, on standard error."""
    print(one_line(text), file=sys.stderr if error else sys.stdout, flush=True)


def _is_hidden(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in _HIDDEN
