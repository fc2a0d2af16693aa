"""Launch: the process group of the ranks that torchrun starts, once they are found to belong to one run."""

import contextlib
import datetime
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from localearn.errors import UserError
from localearn.moved import former_names
from localearn.training.distributed.data import DataRanks
from localearn.training.distributed.pipeline import LayerRanks
from localearn.training.distributed.ranks import ProcessGroupRanks, Ranks, shared_error
from localearn.training.runtime import select_device
from localearn.training.settings import Settings

MODES: Mapping[str, type[ProcessGroupRanks]] = {"data": DataRanks, "layers": LayerRanks}
LAUNCH_COMMAND = "torchrun --nproc-per-node=2 -m localearn.run parallel={} ..., or parallel=none"
TEARDOWN_S = 0.05  # that gloo's threads are waited for, see below
_joins = itertools.count()  # makes keys unique in a store that outlives a process group, or a rank


@contextlib.contextmanager
def join_process_group(settings: Settings, identity: Mapping[str, Any]) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the process group of the run inside the block; with `parallel=none` there is one rank.

    A process group that the caller has initialized already is used, and not destroyed.

    Args:
        settings: The options `parallel`, `rank_timeout_s` and `device`.
        identity: Values that must be equal on all ranks, by name: versions, options.

    Yields:
        The ranks, as this process sees them, and its device.

    Raises:
        UserError: On every rank, where one does not join within `rank_timeout_s`, or differs in `identity`.

    """
    if settings.parallel == "none":
        yield Ranks(), select_device(settings.device)
        return
    owned = not dist.is_initialized()
    if owned and not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UserError(f"parallel={settings.parallel} needs ranks: {LAUNCH_COMMAND.format(settings.parallel)}")
    device = select_device(_local_device(settings.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if owned:
        _init_process_group(device, settings.rank_timeout_s, identity)
    try:
        ranks = MODES[settings.parallel](device, settings.rank_timeout_s)
        if not owned:
            identities = ranks.all_gather_object(json.dumps(dict(identity), default=str))
            ranks.run_on_all_ranks(lambda: _check_equal(identities))
        yield ranks, device
    finally:
        if owned:
            # gloo's threads release the last tensor a moment after it has arrived, for which they need the interpreter:
            # if that has exited by then, they abort the process (SIGABRT).
            time.sleep(TEARDOWN_S)
            with contextlib.suppress(RuntimeError):  # a rank was lost
                dist.destroy_process_group()


def _local_device(name: str) -> str:
    """Return the device of this rank: of the machine's GPUs the one of its local rank."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return name


def _init_process_group(device: torch.device, timeout_s: float, identity: Mapping[str, Any]) -> None:
    """Initialize the default process group, once all ranks have joined with equal identities."""
    from torch.distributed.rendezvous import rendezvous

    timeout = datetime.timedelta(seconds=timeout_s)
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if "EADDRINUSE" in str(error):
            reason = "that port is in use; give torchrun another --master-port"
        raise UserError(f"the ranks cannot rendezvous at {address}: {reason}") from error
    store.set_timeout(timeout)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefix = f"localearn/{attempt}/{next(_joins)}"
    store = dist.PrefixStore(prefix, store)  # pyright: ignore[reportPrivateImportUsage]
    _exchange_identities(store, rank, size, timeout, identity)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except RuntimeError as error:
        raise UserError(
            f"the process group cannot be initialized with {backend}: {str(error).splitlines()[0]}"
        ) from error


def _exchange_identities(
    store: Any, rank: int, size: int, timeout: datetime.timedelta, identity: Mapping[str, Any]
) -> None:
    """Send this rank's identity to rank 0, which compares all of them; raise UserError on every rank if they differ."""
    store.set(f"identity/{rank}", json.dumps(dict(identity), default=str))
    if rank == 0:
        mismatch = _mismatch(store, size, timeout)
        store.set("mismatch", mismatch)
    else:
        try:
            # Longer than rank 0 itself waits for the slowest rank before it answers.
            store.wait(["mismatch"], timeout + datetime.timedelta(seconds=10))
        except RuntimeError as error:
            raise UserError(f"rank 0 did not answer within {timeout.total_seconds():g} s") from error
        mismatch = store.get("mismatch").decode()
    if mismatch:
        raise shared_error(mismatch, rank)


def _mismatch(store: Any, size: int, timeout: datetime.timedelta) -> str:
    """Return why the ranks cannot train together, empty where they can."""
    keys = [f"identity/{rank}" for rank in range(size)]
    try:
        store.wait(keys, timeout)
    except RuntimeError:
        missing = [str(rank) for rank, key in enumerate(keys) if not store.check([key])]
        names = f"rank{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        return f"{names} did not join within {timeout.total_seconds():g} s; {size} ranks were started"
    try:
        _check_equal([store.get(key).decode() for key in keys])
    except UserError as error:
        return str(error)
    return ""


def _check_equal(identities: list[str]) -> None:
    """Raise UserError for the first rank that differs from rank 0, naming the difference."""
    first, *others = (json.loads(text) for text in identities)
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if other.get(name) != value:
                raise UserError(f"rank {rank} has {name} {other.get(name)}, and rank 0 has {value}; they must be equal")


if not TYPE_CHECKING:  # so that a type checker knows only the present names
    __getattr__ = former_names(__name__)
