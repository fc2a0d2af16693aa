"""Reading and writing of weights by safetensors, under the names of the user's own module.

A `Net` cut from a module shares its parameters, under other names: `blocks.0.op.weight` where the module says
`conv1.weight`. A file is written under the module's names, so that the module's own class loads it without localearn,
and a file that this class has saved is read here.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from localearn.errors import UserError, suggestion
from localearn.files import atomic_write
from localearn.nets.net import Net


def save_weights(net: Net, path: str | Path) -> None:
    """Write a net's weights by safetensors under its source module's names.

    Args:
        net: the net, trained or not.
        path: the file, which is written over where it is there.

    Raises:
        UserError: where it cannot be written.

    Example:
        model = MyNet()
        net = Net.from_blocks(None, [model.conv1, model.conv2], model.fc, input_shape=(1, 28, 28), module=model)
        localearn.MonoForward(net).fit(data)
        localearn.save_weights(net, "mine.safetensors")
        MyNet().load_state_dict(safetensors.torch.load_file("mine.safetensors"))

    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, tensor in net.own_weights().items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        tensors[name] = own.clone() if memory in written else own  # the format refuses tensors that share memory
        written.add(memory)
    try:
        with atomic_write(Path(path).expanduser()) as temporary:
            save_file(tensors, temporary)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def load_weights(net: Net, weights: str | Path | Mapping[str, Tensor]) -> None:
    """Load weights into a net, under its source module's names or its own.

    Args:
        net: the net; its tensors stay where they are, on their device and of their dtype.
        weights: a file of safetensors, or a `state_dict()`. It may include tensors that the module has and the net has
            not.

    Raises:
        UserError: where the file cannot be read, or a tensor is missing or has another shape; the net is then
            unchanged.

    Example:
        localearn.load_weights(net, "mine.safetensors")

    """
    where = "the weights" if isinstance(weights, Mapping) else str(weights)
    tensors = weights if isinstance(weights, Mapping) else _read(Path(weights))
    state, names = net.state_dict(), net.own_names()
    if state.keys() <= tensors.keys():
        names = {name: name for name in state}
    missing = [own for own in names.values() if own not in tensors]
    if missing:
        near = suggestion(missing[0], tensors)
        raise UserError(f"{where}: there is no {missing[0]} ({len(missing)} of {len(names)} tensors are missing){near}")
    for name, tensor in state.items():
        found = tensors[names[name]]
        if found.shape != tensor.shape:
            has, takes = tuple(found.shape), tuple(tensor.shape)
            raise UserError(f"{where}: {names[name]} has shape {has}, and the net takes {takes}")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(tensors[names[name]])


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {getattr(error, 'strerror', None) or error}") from error
