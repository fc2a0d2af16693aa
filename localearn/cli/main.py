"""`localearn`: one command with a subcommand for each; `localearn run` is `python -m localearn.run`."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from localearn.cli.commands import COMMANDS, SUMMARIES, module_of
from localearn.cli.errors import leave, run_command
from localearn.cli.pages import HELP
from localearn.errors import UserError, suggestion
from localearn.printing import say

FLAGS = ("--help", "--version", "--install-completion", "--show-completion")

PAGE = """\
localearn COMMAND [key=value ...]

Trains neural networks without backpropagation, and measures honestly what that costs and saves.

{commands}

localearn COMMAND --help shows a command's options. In an afternoon:

  localearn list rules                       what there is, and what it serves
  localearn run                              Mono-Forward on scikit-learn's digits, in seconds
  localearn compare algos=[backprop,mono_forward] out=comparison
  localearn report comparison                the report again, from the records alone

  --version                    localearn's version
  --install-completion [SHELL] have bash, zsh or fish complete commands, keys and choices; --show-completion prints it
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; return the exit status.

    Args:
        argv: The command's name and its arguments; None is those of the process.

    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        # Its module, torch with it, is imported inside: Ctrl-C is then one line too.
        return run_command(lambda rest: module_of(arguments[0]).main(rest), arguments[1:])
    return run_command(_without_command, arguments)


def console() -> NoReturn:
    """Run one of the commands and end the process with its exit status.

    A console script's `sys.path` has the script's own folder and not the current one, which is added here for
    `algo._target_=my_rules.MyRule`, last, so that it hides no installed package.
    """
    if "" not in sys.path and not sys.flags.safe_path:
        sys.path.append("")
    leave(main())


def _without_command(arguments: list[str]) -> int:
    if not arguments or arguments[0] in HELP:
        print(PAGE.format(commands="\n".join(f"  {name:<20}{SUMMARIES[name]}" for name in COMMANDS)), end="")
        return 0 if arguments else 2
    word, *rest = arguments
    flag, equals, value = word.partition("=")
    shell = value if equals else next(iter(rest), None)
    if flag == "--version":
        say(f"localearn {sys.modules['localearn'].__version__}")
    elif flag == "--install-completion":
        from localearn.cli.completion import install

        install(shell)
    elif flag == "--show-completion":
        from localearn.cli.completion import script

        print(script(shell), end="")
    else:
        near = suggestion(word, FLAGS if word.startswith("-") else COMMANDS)
        raise UserError(f"no command {word!r}{near}; there are {', '.join(COMMANDS)}")
    return 0
