"""Shell completion of `localearn`: its commands, their keys, and the choices of each.

The script contains all names, so that a TAB starts no Python; run `localearn --install-completion` again after an
update to add the new ones.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from localearn.cli.commands import COMMANDS, module_of
from localearn.cli.options import Command, choice, options_of, spec_of
from localearn.cli.pages import choices, choices_of, config_key_names
from localearn.defaults import GROUPS, rule_names
from localearn.errors import UserError
from localearn.files import replace_text
from localearn.printing import say

SHELLS = ("bash", "zsh", "fish")
OF_RULES = ("algos", "rules", "baseline", "rule")  # options that take the names of rules

BASH = """\
# Completion of localearn for bash.
_localearn_keys() {{
    case "$1" in
{keys}
    esac
}}

_localearn_values() {{
    case "$1:$2" in
{values}
    esac
}}

_localearn() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="" key="" before=""
    if (( COMP_CWORD > 0 )); then prev="${{COMP_WORDS[COMP_CWORD-1]}}"; fi
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=( $(compgen -W "{commands}" -- "$cur") )
        return
    fi
    # "=" is a word of its own where COMP_WORDBREAKS has it, as by default in bash.
    if [[ "$cur" == "=" ]]; then key="$prev"; cur=""
    elif [[ "$prev" == "=" ]]; then key="${{COMP_WORDS[COMP_CWORD-2]}}"
    elif [[ "$cur" == *=* ]]; then key="${{cur%%=*}}"; before="$key="; cur="${{cur#*=}}"
    fi
    if [[ -z "$key" ]]; then
        COMPREPLY=( $(compgen -W "$(_localearn_keys "${{COMP_WORDS[1]}}")" -- "$cur") $(compgen -d -S / -- "$cur") )
        [[ "${{COMPREPLY[0]}}" == -* ]] || compopt -o nospace 2>/dev/null
        return
    fi
    local part="${{cur##*[\\[,]}}"  # of a list, [a,b
    before="$before${{cur%"$part"}}"
    COMPREPLY=( $(compgen -P "$before" -W "$(_localearn_values "${{COMP_WORDS[1]}}" "$key")" -- "$part") )
    if [[ ${{#COMPREPLY[@]}} == 0 ]]; then COMPREPLY=( $(compgen -P "$before" -f -- "$part") ); fi
}}
complete -F _localearn localearn
"""


ZSH = """\
# Completion of localearn for zsh, which reads a list, algos=[a,b], where it is in quotes.
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}

_localearn_keys() {{
    case "$1" in
{keys}
    esac
}}

_localearn_values() {{
    case "$1:$2" in
{values}
    esac
}}

_localearn() {{
    local cur="$PREFIX"
    local -a offered
    if (( CURRENT == 2 )); then
        offered=({commands})
        compadd -a offered
    elif [[ "$cur" == *=* ]]; then
        offered=(${{=$(_localearn_values "$words[2]" "${{cur%%=*}}")}})
        if (( $#offered )); then
            compset -P '*[\\[,=]'
            compadd -S '' -a offered
        else
            compset -P '*='
            _files
        fi
    else
        offered=(${{=$(_localearn_keys "$words[2]")}})
        compadd -S '' -- ${{(M)offered:#*=}}
        compadd -- ${{offered:#*=}}
        _files -/
    fi
}}
compdef _localearn localearn
"""


def script(shell: str | None) -> str:
    """Return the completion's text for a shell.

    Args:
        shell: "bash", "zsh" or "fish"; None is that of $SHELL.

    Raises:
        UserError: For another shell.

    """
    name = _shell(shell)
    if name == "fish":
        return _fish()
    return _filled(ZSH if name == "zsh" else BASH)


def install(shell: str | None, home: Path | None = None) -> Path:
    """Write the completion where a shell reads it, print its path, and return it.

    Args:
        shell: "bash", "zsh" or "fish"; None is that of $SHELL.
        home: The home folder; None is the user's.

    """
    name, home = _shell(shell), Path.home() if home is None else home
    fish = home / ".config" / "fish" / "completions" / "localearn.fish"
    path = fish if name == "fish" else home / ".local" / "share" / "localearn" / f"completion.{name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, script(name))
        if name != "fish":
            start, line = home / f".{name}rc", f"source {shlex.quote(str(path))}\n"
            if line not in (start.read_text(encoding="utf-8") if start.exists() else ""):
                with start.open("a", encoding="utf-8") as end:
                    end.write(line)
                say(f"{start}: {line.strip()}")
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be written: {error.strerror}") from error
    say(f"{path}: a new {name} completes localearn")
    return path


def _shell(given: str | None) -> str:
    name = given or Path(os.environ.get("SHELL", "")).name
    if not given and name not in SHELLS:
        raise UserError("which shell? say localearn --install-completion bash, or zsh or fish")
    return choice("the shell", name, SHELLS)


def _commands() -> Mapping[str, Command]:
    return {name: module_of(name).COMMAND for name in COMMANDS}


def keys_of(command: Command) -> list[str]:
    """Return the words with which an option of a command can begin."""
    kind = command.options
    own = [word for name, declared in options_of(kind).items() for word in spec_of(declared).flag or (f"{name}=",)]
    shared = [f"{name}=" for name in (*GROUPS, *config_key_names())] if _makes_runs(command) else []
    return [*dict.fromkeys([*own, *shared]), "--help"]


def values_of(command: Command) -> dict[str, Sequence[str]]:
    """Return the choices of each key of a command that has any."""
    kind = command.options
    found: dict[str, Sequence[str]] = {}
    for name in options_of(kind):
        choices_here = rule_names() if name in OF_RULES else choices_of(kind, name)
        if choices_here:
            found[name] = choices_here
    if _makes_runs(command):
        found |= {group: [name for name, _ in choices(group)] for group in GROUPS}
    return found


def _makes_runs(command: Command) -> bool:
    return bool(options_of(command.options, "rest")) or command.name == "run"


def _filled(text: str) -> str:
    """Return a script with the commands, their keys and the choices of each."""
    keys, values = [], []
    for name, command in _commands().items():
        keys.append(f"        {name}) echo {shlex.quote(' '.join(keys_of(command)))} ;;")
        for key, words in values_of(command).items():
            values.append(f"        {name}:{key}) echo {shlex.quote(' '.join(words))} ;;")
    return text.format(keys="\n".join(keys), values="\n".join(values), commands=" ".join(COMMANDS))


FISH = """\
# Completion of localearn for fish.
function __localearn_list --description "the choices of a key after those of a list, [a,b"
    set -l key $argv[1]
    set -l begun (string match -r "^$key=(.*[\\[,])" -- (commandline -ct))
    test (count $begun) -eq 2; or return
    for word in $argv[2..]
        echo "$key=$begun[2]$word"
    end
end
complete -c localearn -n __fish_use_subcommand -f
"""


def _fish() -> str:
    lines = []
    for name, command in _commands().items():
        lines.append(
            f"complete -c localearn -n __fish_use_subcommand -a {shlex.quote(name)} -d {shlex.quote(command.summary)}"
        )
        values = values_of(command)
        words = [key for key in keys_of(command) if key.rstrip("=") not in values]
        words += [f"{key}={word}" for key, chosen in values.items() for word in chosen]
        seen = shlex.quote(f"__fish_seen_subcommand_from {name}")
        lines.append(f"complete -c localearn -n {seen} -a {shlex.quote(' '.join(words))}")
        for key, chosen in values.items():
            lists = f"(__localearn_list {key} {' '.join(chosen)})"
            lines.append(f"complete -c localearn -n {seen} -a {shlex.quote(lists)}")
    return FISH + "\n".join(lines) + "\n"
