"""`python -m localearn.export DIR format=onnx`: write a trained net as other programs read it."""

from collections.abc import Sequence
from pathlib import Path

from localearn.errors import UserError, suggestion
from localearn.exporting import SUFFIXES, TOLERANCE, export, prediction_remark
from localearn.printing import say
from localearn.trust import words

HELP = """\
python -m localearn.export DIR [format=torch_export] [out=FILE]

Writes the trained net of a run's folder as other programs read it, and checks on rows that it never saw, one and many
at a time, that the file gives the net's own outputs; a file that does not is not left behind.

  format=torch_export   a torch.export program, for torch.export.load and whatever compiles one
  format=onnx           an ONNX graph, for ONNX Runtime and others; pip install "localearn[onnx]"
  out=FILE              where to write; DIR/net.pt2 or DIR/net.onnx where none is given
  trust=my_nets.MyNet   import this class of your own, if the folder names it

The input is x, (rows, ...), as the run's dataset gives it (dataset.normalize= in DIR/config.yaml), for a graph with
edge_index, (2, edges), of text int64 token ids, (rows, window); the output is logits, (rows, classes), or at each
position (rows, window, tokens). Any number of rows and edges is taken.
Where the classes have names they stand in the file in the order of the logits, as JSON under class_names: among ONNX's
metadata, and among the extra_files of a torch.export program.
"""
OPTIONS = ("format", "out", "trust", "debug")


def main(arguments: list[str]) -> int:
    """Export a net and check it; return the exit status: 0, or 1 where the outputs do not agree."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    folder, options = _parse(arguments)
    kind = options.get("format", "torch_export")
    out = Path(options.get("out") or folder / f"net{SUFFIXES[kind]}").expanduser()
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


def _parse(arguments: Sequence[str]) -> tuple[Path, dict[str, str]]:
    folders = [argument for argument in arguments if _is_folder(argument)]
    options = dict(argument.split("=", 1) for argument in arguments if argument not in folders)
    unknown = [name for name in options if name not in OPTIONS]
    if unknown or len(folders) != 1 or folders[0].startswith("-"):
        near = suggestion(unknown[0], OPTIONS) if unknown else ""
        wrong = f"no option {unknown[0]!r}{near}" if unknown else "name one run's folder"
        raise UserError(f"{wrong}; say python -m localearn.export runs/... format=onnx")
    kind = options.get("format", "torch_export")
    if kind not in SUFFIXES:
        raise UserError(f"no format {kind!r}{suggestion(kind, SUFFIXES)}; there are {', '.join(SUFFIXES)}")
    return Path(folders[0]).expanduser(), options


def _is_folder(argument: str) -> bool:
    """Whether an argument is a path; one with a "=" is, if it exists."""
    return "=" not in argument or (argument.partition("=")[0] not in OPTIONS and Path(argument).expanduser().exists())
