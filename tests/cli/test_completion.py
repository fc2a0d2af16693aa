"""Tab completion: in bash, what a TAB offers; of the other shells, what their scripts hold."""

import shutil
import subprocess

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


def test_scripts_hold_every_command_and_the_choices():
    for shell in completion.SHELLS:
        text = completion.script(shell)
        assert all(name in text for name in COMMANDS)
        assert "mono_forward" in text and "adamw" in text
    assert completion.script("zsh").startswith("autoload -U +X bashcompinit")


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
