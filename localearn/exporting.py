"""Export a trained net to torch.export or ONNX, and check that its outputs agree."""

import json
import logging
import math
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localearn.errors import UserError, suggestion
from localearn.extras import optional
from localearn.records import read_record
from localearn.trust import check_tree

if TYPE_CHECKING:
    from torch import Tensor, nn

    from localearn.nets import Net

SUFFIXES = {"torch_export": ".pt2", "onnx": ".onnx"}
ROWS = (1, 7)  # of the check: one, and a number that the export did not see
TOLERANCE = 1e-4  # of the logits, relative to the largest: other programs add in another order

Program = Callable[..., "Tensor"]


def export(
    folder: str | Path, kind: str, out: str | Path, trust: Collection[str] = (), *, net: "Net | None" = None
) -> float:
    """Write a run's net to a file in another format.

    Args:
        folder: The run's folder.
        kind: "torch_export" or "onnx".
        out: The file to write, which must not exist.
        trust: Classes that the folder may name, as in `load_net`.
        net: A net of one's own modules, built as the trained one was, as in `load_net`.

    Returns:
        The largest difference between the file's outputs and the net's, relative to the largest output. A file that
        differs by more than TOLERANCE is removed.

    Raises:
        UserError: Where there is no net, the file exists or cannot be written, or what ONNX needs is not installed.

    """
    from localearn.training.loading import load_net

    if kind not in SUFFIXES:
        raise UserError(f"no format {kind!r}{suggestion(kind, SUFFIXES)}; there are {', '.join(SUFFIXES)}")
    net, out = load_net(folder, net=net, trust=trust), Path(out).expanduser()
    try:
        out.touch(exist_ok=False)
    except FileExistsError as error:
        raise UserError(f"{out} is there already; give another out=") from error
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
    difference = math.inf
    try:
        program = {"torch_export": _torch_export, "onnx": _onnx}[kind](net, out)
        difference = max(_difference(net, program, rows) for rows in ROWS)
    finally:
        if not difference <= TOLERANCE:
            out.unlink()
    return difference


def _named(net: "Net") -> "nn.Module":
    """Return the net with named inputs, which a program's signature shows."""
    from torch import Tensor, nn

    class OfRows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    class OfGraph(OfRows):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.net(x, edge_index)

    return (OfGraph if net.graph else OfRows)().eval()


def _inputs(net: "Net", rows: int) -> tuple["Tensor", ...]:
    """Return rows that the net never saw, the same at every call; for a graph with edges between them."""
    import torch

    generator = torch.Generator().manual_seed(rows)
    if net.takes.vocabulary is None:
        x = torch.randn(rows, *net.input_shape, generator=generator)
    else:
        x = torch.randint(net.takes.vocabulary, (rows, *net.input_shape), generator=generator)
    for column, size in enumerate(net.takes.categories):
        x[:, column] = torch.randint(size, (rows,), generator=generator)
    return (x, torch.randint(rows, (2, 2 * rows), generator=generator)) if net.graph else (x,)


def _exported(net: "Net") -> tuple["nn.Module", tuple["Tensor", ...], dict[str, Any]]:
    """Return the arguments of both exporters: the module, an example input, and its dynamic sizes."""
    from torch.export import Dim

    free: dict[str, Any] = {"x": {0: Dim("rows", min=1)}}
    if net.graph:
        free["edge_index"] = {1: Dim("edges", min=1)}
    return _named(net), _inputs(net, 3), free


def _torch_export(net: "Net", out: Path) -> Program:
    import torch

    module, example, free = _exported(net)
    with torch.no_grad(), warnings.catch_warnings():
        # A recurrent layer of torch's rebuilds the list of its weights while it is iterated over.
        warnings.filterwarnings("ignore", message=r"The tensor attributes? self\..*_flat_weights", category=UserWarning)
        program = torch.export.export(module, example, dynamic_shapes=free, strict=False)
        torch.export.save(program, out, extra_files=_class_names(net))
    return torch.export.load(out).module()


def _onnx(net: "Net", out: Path) -> Program:
    import torch

    onnxruntime = optional("onnxruntime", "format=onnx", "onnx")
    optional("onnxscript", "format=onnx", "onnx")  # torch.onnx needs it
    module, example, free = _exported(net)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's warnings of its own internals, which nobody can act on here
        try:
            program = torch.onnx.export(
                module, example, dynamo=True, dynamic_shapes=free, output_names=["logits"], verbose=False
            )
        except Exception as error:  # a UserError of a layer is wrapped in the exporter's own exception
            if isinstance(error.__cause__, UserError):
                raise error.__cause__ from error
            raise
    assert program is not None
    program.model.metadata_props.update(_class_names(net))
    program.save(out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: "Tensor") -> "Tensor":
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        (logits,) = session.run(["logits"], given)
        return torch.from_numpy(logits)

    return run


def _class_names(net: "Net") -> dict[str, str]:
    """Return the metadata entry of a program whose classes have names: them in order, as JSON."""
    return {} if net.class_names is None else {"class_names": json.dumps(net.class_names)}


def _difference(net: "Net", program: Program, rows: int) -> float:
    import torch

    inputs = _inputs(net, rows)
    with torch.no_grad():
        expected, given = net(*inputs), program(*inputs)
    if given.shape != expected.shape:
        return math.inf
    return ((given - expected).abs().max() / expected.abs().max()).item()


def prediction_remark(folder: Path, trust: Collection[str]) -> str | None:
    """Return a line where the run's rule predicts by more than the net, or that is unknown; else None.

    Args:
        folder: The run's folder.
        trust: Classes that the folder may name.

    """
    import torch

    from localearn.training.building import build_rule
    from localearn.training.loading import load_net

    net = load_net(folder, trust=trust)
    try:
        record = read_record(folder)
        check_tree(folder / "run.json", {"config": {"algo": record.config["algo"]}}, trust)
        rule = build_rule(record.config["algo"], net, record.algo).eval()
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:  # an old record, a rule not installed here
        why = f" ({error})" if isinstance(error, UserError) else ""
        return (
            f"the run's rule could not be built here, so it was not checked whether it predicts by its net alone{why}"
        )
    inputs = _inputs(net, ROWS[-1])
    with torch.no_grad():
        alone = torch.allclose(rule.predict(*inputs), net(*inputs), atol=TOLERANCE)
    if alone:
        return None
    return f"{record.algo} predicts by more than its net; what is exported is the net with its readout alone"
