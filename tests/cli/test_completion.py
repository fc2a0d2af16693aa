"""Tab completion: in bash, what a TAB offers; of the other shells, what their scripts hold."""

import shlex
import shutil
import subprocess
import sys

import pytest

from localearn.cli import completion
from localearn.cli.commands import COMMANDS
from localearn.cli.main import main as entry
from localearn.errors import UserError

# Splits a line as bash does for a completion, "=" being a word of its own, and prints what is offered.
TAB = """
{script}
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_localearn
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def offered(tmp_path_factory):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    script, empty = completion.script("bash"), tmp_path_factory.mktemp("empty")

    def tab(*words: str) -> set[str]:
        text = TAB.format(script=script, words=" ".join(f"'{word}'" for word in words))
        done = subprocess.run(
            ["bash", "--norc", "-c", text], capture_output=True, text=True, check=True, cwd=empty, timeout=60
        )
        assert done.stderr == ""
        return set(done.stdout.split())

    return tab


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["localearn", ""], set(COMMANDS)),
        (["localearn", "re"], {"report", "report-environment"}),
        (["localearn", "run", "algo", "=", "mono"], {"mono_forward"}),
        (["localearn", "run", "algo=mono"], {"algo=mono_forward"}),
        (["localearn", "run", "schedule", "="], {"constant", "cool_down", "cosine", "exponential", "fractions",
                                                 "plateau", "step", "step_decay"}),
        (["localearn", "run", "batch"], {"batch_size="}),
        (["localearn", "compare", "algos", "=", "[backprop,mono"], {"[backprop,mono_forward"}),
        (["localearn", "tune", "sampler", "=", "c"], {"cmaes"}),
        (["localearn", "report", "allow"], {"allow_unlike="}),
        (["localearn", "report", "allow_unlike", "=", "t"], {"true"}),
        (["localearn", "bench", "--q"], {"--quick"}),
    ],
)  # fmt: skip
def test_bash_offers(offered, words, expected):
    assert offered(*words) == expected


# What a shell offers for a line whose last word is begun: the words after `localearn`, as each shell shows them.
LINES = [
    ("re", {"report", "report-environment"}),
    ("run batch", {"batch_size="}),
    ("run algo=mono", {"algo=mono_forward"}),
    ("run schedule=co", {"schedule=constant", "schedule=cool_down", "schedule=cosine"}),
    ("compare algos=[backprop,mono", {"algos=[backprop,mono_forward"}),
    ("tune sampler=c", {"sampler=cmaes"}),
    ("report allow_unlike=t", {"allow_unlike=true"}),
    ("bench --q", {"--quick"}),
]

# A zsh on a pseudoterminal: the line is typed, TAB is pressed twice, and what is then on the terminal is printed.
ZSH = r"""
import os, pty, select, sys, time
script, line = sys.argv[1:]
pid, end = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", COLUMNS="200")
    os.execvp("zsh", ["zsh", "-f", "-i"])
def send(text):
    os.write(end, text.encode())
def read(until, limit_s=15):
    seen, ends = "", time.time() + limit_s
    while until not in seen and time.time() < ends:
        if select.select([end], [], [], 0.2)[0]:
            try:
                seen += os.read(end, 65536).decode(errors="replace")
            except OSError:
                break
    return seen
send("PS1=; autoload -U compinit; compinit -D -u; source " + script + "; print RE''ADY\n")
read("READY")
time.sleep(0.5)  # until the prompt is there
send("localearn " + line + "\t\t")
time.sleep(1.0)
send("\x15print EN''D\n")
print(read("END"))
os.close(end)
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Return what a shell offers, by asking the shell itself."""
    folder = tmp_path_factory.mktemp("shells")
    empty = tmp_path_factory.mktemp("nothing")

    def asked(shell: str, line: str) -> set[str]:
        if shutil.which(shell) is None:
            pytest.skip(f"there is no {shell} here")
        script = folder / f"completion.{shell}"
        script.write_text(completion.script(shell))
        if shell == "fish":
            text = f"source {script}; complete -C {shlex.quote('localearn ' + line)}"
            command = ["fish", "--no-config", "-c", text]
        else:
            command = [sys.executable, "-c", ZSH, str(script), line]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=empty, timeout=100)
        if shell == "fish":
            return {word.partition("\t")[0] for word in done.stdout.splitlines()}
        return {word.strip("\x07") for word in done.stdout.replace("\x07", "").split()}

    return asked


@pytest.mark.slow
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish_offers(shown, line, expected):
    assert shown("fish", line) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_zsh_offers(shown, line, expected):
    quote = "'" if "[" in line else ""  # without which zsh takes a list for a pattern of files
    command, _, word = line.rpartition(" ")
    found = shown("zsh", f"{command} {quote}{word}".lstrip())
    if len(expected) > 1:  # they are listed, without the key
        expected = {value.rpartition("=")[2] for value in expected}
    assert {quote + value for value in expected} <= found


def test_scripts_hold_every_command_and_the_choices():
    for shell in completion.SHELLS:
        text = completion.script(shell)
        assert all(name in text for name in COMMANDS)
        assert "mono_forward" in text and "adamw" in text


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_it_is_installed_once(tmp_path, shell, capsys):
    start = tmp_path / f".{shell}rc"
    start.write_text("alias x=y\n")
    path = completion.install(shell, tmp_path)
    completion.install(shell, tmp_path)
    assert path.read_text() == completion.script(shell)
    assert start.read_text() == f"alias x=y\nsource {path}\n"
    assert str(path) in capsys.readouterr().out


def test_fish_reads_its_own_folder(tmp_path):
    path = completion.install("fish", tmp_path)
    assert path == tmp_path / ".config" / "fish" / "completions" / "localearn.fish"
    assert list(tmp_path.iterdir()) == [tmp_path / ".config"]


def test_another_shell_is_told(monkeypatch, capsys):
    with pytest.raises(UserError, match="the shell is bash, zsh or fish, not 'fsh'; did you mean 'fish'"):
        completion.script("fsh")
    monkeypatch.setenv("SHELL", "/bin/dash")
    assert entry(["--show-completion"]) == 2
    assert "which shell?" in capsys.readouterr().err
