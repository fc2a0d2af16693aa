"""`python -m localearn.sample DIR prompt="ROMEO:"`: continue a text by a run's language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Options, Range, argument, option, read
from localearn.cli.pages import help_status
from localearn.printing import visible
from localearn.trust import words


@dataclass(frozen=True)
class SampleOptions(Options):
    """The options of a sampled text."""

    folder: Path = argument(
        "DIR",
        "the run's folder",
        missing='name one run\'s folder; say localearn sample runs/... prompt="To be"',
    )
    prompt: str = option("\n", "what the text begins with; a line break where none is given", value="TEXT", empty=True)
    length: int = option(400, "how many tokens to write", range=Range(least=0))
    temperature: float = option(
        0.8, "1 draws as the net has it, less is more cautious, 0 takes the likeliest token", range=Range(least=0)
    )
    seed: int = option(0, "of the draws", range=Range(least=0))
    trust: str | None = option(None, "import this class of your own, if the folder names it", value="my_nets.MyNet")


COMMAND = Command(
    "sample",
    SUMMARIES["sample"],
    SampleOptions,
    """\
Continues a text by the net of a run's folder that was trained on text (dataset=text), and prints it. The vocabulary is
in the folder's net.safetensors.
""",
)


def main(arguments: Sequence[str]) -> int:
    """Print a sampled text; return the exit status."""
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    options = read(SampleOptions, arguments)
    from localearn.data import generate
    from localearn.training.loading import load_net

    net = load_net(options.folder, trust=words(list(arguments))[1])
    text = generate(net, options.prompt, length=options.length, temperature=options.temperature, seed=options.seed)
    # Its vocabulary may be a stranger's: a tab and a line break are written as they are, an escape sequence is not.
    print("\t".join(visible(part) for part in text.split("\t")))
    return 0
