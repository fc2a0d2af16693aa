"""What only POSIX systems have is asked for before it is used, so that Windows does without it.

Tests are held to it at import alone, where an error ends the whole run; a test that needs POSIX is marked `posix`.
"""

import ast
from pathlib import Path

import pytest

import localearn

PACKAGE = Path(localearn.__file__).parent
TESTS = Path(__file__).parents[1]
MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
# Names that the standard library's documentation gives to Unix alone, or not to Windows.
NAMES = {
    module: set(names.split())
    for module, names in {
        "os": """fork forkpty getegid geteuid getgid getloadavg getpgid getpriority getuid killpg mkfifo nice
            posix_fadvise posix_fallocate posix_spawn sched_getaffinity sched_setaffinity setpriority setsid statvfs
            sysconf uname wait wait4""",
        "signal": """SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2
            alarm pause pthread_kill pthread_sigmask setitimer sigtimedwait sigwait""",
        "socket": "AF_UNIX",
        "time": "clock_gettime tzset",
    }.items()
}


def unguarded(source: str, at_import: bool = False) -> list[str]:
    """Return each use of a POSIX name that no `hasattr` of the same function asks for, with its line.

    at_import: leave out what stands in functions.
    """
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = []
    for node in ast.walk(tree):
        if at_import and any(f.body[0].lineno <= getattr(node, "lineno", 0) <= (f.end_lineno or 0) for f in functions):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [module] if module else [alias.name for alias in node.names]
            found += [f"{node.lineno}: {name}" for name in names if name in MODULES]
            if module in NAMES:
                found += [f"{node.lineno}: {module}.{a.name}" for a in node.names if a.name in NAMES[module]]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = node.value.id, node.attr
            if name in NAMES.get(module, ()) and not _asked(module, name, node.lineno, functions):
                found.append(f"{node.lineno}: {module}.{name}")
    return found


def _asked(module: str, name: str, line: int, functions: list[ast.FunctionDef | ast.AsyncFunctionDef]) -> bool:
    first = lambda function: min([function.lineno, *(d.lineno for d in function.decorator_list)])  # noqa: E731 - a key
    around = [function for function in functions if first(function) <= line <= (function.end_lineno or line)]
    asked = f"hasattr({module}, '{name}')"
    return any(asked in ast.unparse(function) or "AttributeError" in ast.unparse(function) for function in around)


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.relative_to(PACKAGE).as_posix()) for p in sorted(PACKAGE.rglob("*.py"))]
)
def test_nothing_of_posix_alone_is_used_unasked(path: Path):
    assert unguarded(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.relative_to(TESTS).as_posix()) for p in sorted(TESTS.rglob("*.py"))]
)
def test_tests_are_imported_on_any_system(path: Path):
    assert unguarded(path.read_text(encoding="utf-8"), at_import=True) == []


def test_the_search_finds_what_it_looks_for():
    source = """
import fcntl
from os import fork

def load():
    return os.getloadavg()[0]

def asked():
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
"""
    assert unguarded(source) == ["2: fcntl", "3: os.fork", "6: os.getloadavg"]
    assert unguarded(source, at_import=True) == ["2: fcntl", "3: os.fork"]
