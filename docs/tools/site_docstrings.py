"""A Griffe extension: options that a docstring names as `name: what it is` become a list in the API reference."""

import re
from typing import Any

import griffe

OPTION = re.compile(r"^[a-z][a-z_0-9]*(?:, [a-z][a-z_0-9]*)*: \S")


def listed(text: str) -> str:
    """Return a docstring with each line `name: ...` at its margin, and what is indented below it, as a list's item."""
    lines: list[str] = []
    item = False
    for line in text.splitlines():
        if OPTION.match(line):
            names, rest = line.split(": ", 1)
            if not item and lines and lines[-1]:
                lines.append("")
            item = True
            lines.append(f"- **{names}**: {rest}")
        elif item and line and not line.startswith(" "):
            lines += ["", line]
            item = False
        else:
            item = item and bool(line)
            lines.append(line)
    return "\n".join(lines)


class Options(griffe.Extension):
    """Apply `listed` to every docstring but its first line."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Change a docstring when its object is loaded, members included."""
        if obj.docstring is not None:
            first, newline, rest = obj.docstring.value.partition("\n")
            obj.docstring.value = first + newline + listed(rest)
