"""A graph for the CPU that keeps what a card's keeps: kernels on fixed memory, nothing of the Python that queued them.

Recording writes down every operation with the very tensors that it read and wrote; a replay does these operations again
and puts what they give into the same memory. So a rule that looks at a value, takes another way by a count of its own,
or leaves a result where no replay writes, ends in other weights, or cannot be recorded, as on a card.
"""

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

# What a stream that is being captured refuses: the host would have to wait for a value of the device.
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "unique", "_unique2", "unique_dim",
         "unique_consecutive", "repeat_interleave.Tensor")  # fmt: skip


class Tape(TorchDispatchMode):
    """Records operations, undoing what they do."""

    def __init__(self):
        super().__init__()
        self.operations = []
        self._before = {}  # what a recorded operation overwrote first, by the tensor's address

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        name = str(function).removeprefix("aten.")
        if any(name in (word, f"{word}.default") or name.startswith(f"{word}.") for word in WAITS):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        if name.startswith("lift_fresh"):  # torch.tensor(...), rows[index] = 1: unpinned memory
            raise RuntimeError("Cannot copy between CPU and CUDA tensors during CUDA graph capture")
        if name.startswith("index.") and any(i is not None and i.dtype == torch.bool for i in arguments[1]):
            raise RuntimeError("operation not permitted when stream is capturing: a mask's nonzero")
        schema = function._schema
        written = []
        for k, argument in enumerate(schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written += tensors(arguments[k] if k < len(arguments) else options.get(argument.name))
        if name.startswith("native_batch_norm."):  # whose schema does not own that it moves running statistics
            written += tensors(arguments[3:5])
        for tensor in written:
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            self._before.setdefault(key, (tensor.detach(), tensor.detach().clone()))
        given = function(*arguments, **options)
        results = [t.detach() for t in fresh(function, given)]
        self.operations.append((function, arguments, options, results, bool(written)))
        return given

    def undo(self):
        for tensor, before in reversed(self._before.values()):
            tensor.copy_(before)

    def play(self):
        with torch.no_grad(), _disable_current_modes():  # whoever counts operations sees none of a card's either
            for function, arguments, options, results, writes in self.operations:
                if not (results or writes):
                    continue  # a view, of memory that is written elsewhere
                given = function(*tree_map(plain, arguments), **tree_map(plain, options))
                for kept, new in zip(results, fresh(function, given), strict=True):
                    if not kept._is_zerotensor():  # forward mode's, which has no memory
                        kept.copy_(new)


def fresh(function, given):
    """Return what an operation gives in memory of its own, and not in that of its arguments."""
    returns = function._schema.returns
    values = [given] if len(returns) == 1 else given or ()
    return [t for place, value in zip(returns, values, strict=True) if place.alias_info is None for t in tensors(value)]


def tensors(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def plain(value):
    return value.detach() if isinstance(value, torch.Tensor) else value


class TapeGraph:
    """Stands in for `localearn.training.step.CudaGraph`."""

    made = replays = 0

    def __init__(self, device):
        TapeGraph.made += 1

    def capture(self, work):
        self.tape = Tape()
        state = torch.get_rng_state()
        try:
            with self.tape:
                found = work()
        finally:
            torch.set_rng_state(state)
            self.tape.undo()
        return found

    def replay(self):
        TapeGraph.replays += 1
        self.tape.play()

    def warming_up(self):
        return contextlib.nullcontext()
