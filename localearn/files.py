"""Files: atomic writes, and readers of untrusted YAML and JSON whose errors name the file."""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from localearn.errors import UserError

# Far more than in any file that localearn writes. YAML is parsed in Python, a hundred times more slowly than JSON.
MAX_BYTES = {"JSON": 64 * 2**20, "YAML": 2**20}
MAX_DEPTH = 64  # levels of YAML


class UnreadableError(UserError):
    """An error for a file that cannot be read or has unexpected content.

    Attributes:
        reason: The message without the file's name.

    """

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} {reason}")
        self.reason = reason


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Replace a file atomically by what the block writes, synced to disk.

    A reader finds the former file or the complete new one, also after a SIGKILL. An exception in the block leaves the
    former file unchanged, and no temporary one.

    Args:
        path: The file, which may exist; its folder must.

    Yields:
        The name to write to, in the same folder: `.NAME.PID.tmp`.

    Raises:
        OSError: Where the file cannot be written, or the block has not written one.

    Example:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # it does not exist, or its folder does not any more
            temporary.unlink()


def replace_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, as `atomic_write` does.

    Raises:
        OSError: Where it cannot be written.

    """
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, as `atomic_write` does.

    Raises:
        OSError: Where it cannot be written.

    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def kind_of_file(path: Path) -> Literal["file", "folder", "other", ""]:
    """Return the kind of file at a path, following links.

    Args:
        path: The path.

    Returns:
        "file" for a regular file, "folder", "other" such as a pipe, or "" where there is nothing.

    Raises:
        UserError: Where it cannot be determined: in a folder without permission, or for a name that no file can have.

    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:  # a ValueError is a null byte in the path
        raise UserError(f"{path!s:.200} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def is_text_encoding(name: str) -> bool:
    """Return whether a name is that of a text encoding; Python's codecs include others, such as zlib.

    Args:
        name: The name.

    """
    try:
        b"a".decode(name)
    except LookupError:
        return False
    except ValueError:  # not a byte of this encoding, or a null byte in the name
        return "\0" not in name
    return True


def read_bytes(path: Path, kind: str) -> bytes:
    """Return the bytes of a file.

    Args:
        path: The file.
        kind: A key of MAX_BYTES, which bounds its size.

    Raises:
        UnreadableError: Where it is not a regular file (a pipe would block), or too large.

    """
    try:
        if path.exists() and not path.is_file():
            raise UnreadableError(path, f"is {'a folder, ' if path.is_dir() else ''}not a regular file")
        if path.stat().st_size > MAX_BYTES[kind]:
            most = MAX_BYTES[kind] // 2**20
            raise UnreadableError(path, f"has more than {most} MiB, so localearn did not write this {kind}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError is a null byte in the path
        raise UnreadableError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_text(path: Path, kind: str) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark and with line feeds for line breaks.

    Args:
        path: The file.
        kind: A key of MAX_BYTES, which bounds its size.

    Raises:
        UnreadableError: As `read_bytes` does, and where it is not UTF-8.

    """
    try:
        text = read_bytes(path, kind).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(path, f"is not UTF-8 text (byte {error.start})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file as plain values, with interpolations unresolved.

    Args:
        path: The file.

    Raises:
        UserError: As `read_text` does, for what is not YAML or nested too deeply, and for aliases, by which a short
            file can expand to an unbounded tree.

    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    text = read_text(path, "YAML")
    if not text.strip():
        return {}
    try:
        depth = 0
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):
                raise UserError(f"{path} has YAML aliases (*name), which are not supported; repeat the values")
            name = type(token).__name__
            depth += name.endswith("StartToken") - name.endswith("EndToken")
            if depth > MAX_DEPTH:
                raise UserError(
                    f"{path} is nested more than {MAX_DEPTH} levels deep, so localearn did not write this YAML"
                )
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path} is not valid YAML (line {line}: {error.problem})") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, AttributeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is not valid YAML: {reason}") from error
    except RecursionError as error:
        raise UserError(f"{path} is not valid YAML: it is nested too deeply") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: The file.

    Raises:
        UnreadableError: As `read_text` does, and where it has no object.

    """
    try:
        value = json.loads(read_text(path, "JSON"))
    except json.JSONDecodeError as error:
        raise UnreadableError(path, f"is truncated or not JSON (line {error.lineno}: {error.msg})") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
        raise UnreadableError(path, "has numbers or nesting that no record has") from error
    if not isinstance(value, dict):
        raise UnreadableError(path, f"is not a JSON object but {type(value).__name__}")
    return value
