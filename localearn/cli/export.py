"""`python -m localearn.export DIR format=onnx`: export a trained net to a format that other programs read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localearn.cli.commands import SUMMARIES
from localearn.cli.options import Command, Options, argument, option, read
from localearn.cli.pages import help_status
from localearn.exporting import SUFFIXES, TOLERANCE, export, prediction_remark
from localearn.printing import say
from localearn.trust import words


@dataclass(frozen=True)
class ExportOptions(Options):
    """The options of an export."""

    folder: Path = argument(
        "DIR", "the run's folder", missing="name one run's folder; say localearn export runs/... format=onnx"
    )
    format: Literal["torch_export", "onnx"] = option(
        "torch_export",
        'an ONNX graph, for ONNX Runtime and others (pip install "localearn[onnx]"); torch_export: a torch.export '
        "program, for torch.export.load and whatever compiles one",
    )
    out: Path | None = option(None, "where to write; DIR/net.pt2 or DIR/net.onnx where none is given", value="FILE")
    trust: str | None = option(None, "import this class of your own, if the folder names it", value="my_nets.MyNet")


COMMAND = Command(
    "export",
    SUMMARIES["export"],
    ExportOptions,
    """\
Writes the trained net of a run's folder as other programs read it, and checks on rows that it never saw, one and many
at a time, that the file gives the net's own outputs; a file that does not is not left behind.
""",
    """\
The input is x, (rows, ...), as the run's dataset gives it (dataset.normalize= in DIR/config.yaml), for a graph with
edge_index, (2, edges), of text int64 token ids, (rows, window); the output is logits, (rows, classes), or at each
position (rows, window, tokens). Any number of rows and edges is taken.
Where the classes have names they stand in the file in the order of the logits, as JSON under class_names: among ONNX's
metadata, and among the extra_files of a torch.export program.
""",
)


def main(arguments: Sequence[str]) -> int:
    """Export a net and check it; return the exit status: 0, or 1 where the outputs do not agree."""
    status = help_status(COMMAND, arguments)
    if status is not None:
        return status
    options = read(ExportOptions, arguments)
    folder, kind = options.folder, options.format
    out = options.out or folder / f"net{SUFFIXES[kind]}"
    _, trust = words(arguments)
    difference = export(folder, kind, out, trust)
    if not difference <= TOLERANCE:
        say(
            f"error: {kind}'s outputs differ from the net's by {difference:.1e} of the largest output; no file is left",
            error=True,
        )
        return 1
    say(f"{out}: outputs agree with the net's to {difference:.1e} of the largest output")
    warning = prediction_remark(folder, trust)
    if warning:
        say(warning)
    return 0
