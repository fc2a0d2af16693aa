"""Text from a trained net: `python -m localearn.sample DIR prompt="ROMEO:"` lets a run's language model go on."""

import math
from collections.abc import Sequence
from pathlib import Path

from localearn.cli.options import whole
from localearn.errors import UserError, suggestion
from localearn.printing import visible
from localearn.trust import words

HELP = """\
python -m localearn.sample DIR [prompt=TEXT] [length=400] [temperature=0.8] [seed=0]

Continues a text by the net of a run's folder that was trained on text (dataset=text), and prints it. The vocabulary is
in the folder's net.safetensors.

  DIR                the run's folder
  prompt=TEXT        what the text begins with; a line break where none is given
  length=N           how many tokens to write
  temperature=T      1 draws as the net has it, less is more cautious, 0 takes the likeliest token
  seed=N             of the draws
  trust=my_nets.MyNet   import this class of your own, if the folder names it
"""
OPTIONS = ("prompt", "length", "temperature", "seed", "trust", "debug")


def main(arguments: Sequence[str]) -> int:
    """Print a text; return the exit status."""
    if not arguments or {"--help", "-h"} & set(arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    folder, options = _parse(arguments)
    from localearn.data import generate
    from localearn.training.experiment import load_net

    net = load_net(folder, trust=words(list(arguments))[1])
    text = generate(
        net,
        options.get("prompt", "\n"),
        length=whole("length", options.get("length", "400"), 0),
        temperature=_temperature(options.get("temperature", "0.8")),
        seed=whole("seed", options.get("seed", "0"), 0),
    )
    # Its vocabulary may be a stranger's: a tab and a line break are written as they are, an escape sequence is not.
    print("\t".join(visible(part) for part in text.split("\t")))
    return 0


def _parse(arguments: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """Return the folder and the options; an argument with `=` is an option unless a folder has that very name."""
    folders: list[str] = []
    options: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in OPTIONS and equals:
            options[name] = value
        elif argument.startswith("-") or (equals and not Path(argument).exists()):
            raise UserError(
                f"unknown argument {argument!r}{suggestion(name.lstrip('-'), OPTIONS)}; --help lists them all"
            )
        else:
            folders.append(argument)
    if len(folders) != 1:
        raise UserError('name one run\'s folder; say python -m localearn.sample runs/... prompt="To be"')
    return Path(folders[0]).expanduser(), options


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"temperature takes numbers of 0 or more, not {text!r}")
    return value
