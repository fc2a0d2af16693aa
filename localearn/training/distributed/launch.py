"""Launch: join the processes that torchrun starts, and check that they belong to one run."""

import contextlib
import datetime
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from localearn.errors import UserError
from localearn.training.distributed.data import DataRanks
from localearn.training.distributed.pipeline import LayerRanks
from localearn.training.distributed.ranks import JoinedRanks, Ranks, shared
from localearn.training.runtime import select_device
from localearn.training.settings import Settings

MODES: Mapping[str, type[JoinedRanks]] = {"data": DataRanks, "layers": LayerRanks}
STARTED_BY = "torchrun --nproc-per-node=2 -m localearn.run parallel={} ..., or parallel=none"
LAST_WORDS_S = 0.05
_joins = itertools.count()  # of this process: a store that outlives a group, or a rank, still has its keys


@contextlib.contextmanager
def joined(settings: Settings, identity: Mapping[str, Any]) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the other ranks inside the block, where there are any.

    A process group that the caller has made already is used, and not destroyed.

    Args:
        settings: The options `parallel`, `rank_timeout_s` and `device`.
        identity: Values that must be equal on all ranks, by name: versions, options.

    Yields:
        This process's view of the ranks, and its device.

    Raises:
        UserError: On every rank, where one does not join within `rank_timeout_s` or has other values.

    """
    if settings.parallel == "none":
        yield Ranks(), select_device(settings.device)
        return
    ours = not dist.is_initialized()
    if ours and not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UserError(f"parallel={settings.parallel} needs ranks: {STARTED_BY.format(settings.parallel)}")
    device = select_device(_own_card(settings.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if ours:
        _join(device, settings.rank_timeout_s, identity)
    try:
        ranks = MODES[settings.parallel](device, settings.rank_timeout_s)
        if not ours:
            identities = ranks.gathered(json.dumps(dict(identity), default=str))
            ranks.together(lambda: _compare(identities))
        yield ranks, device
    finally:
        if ours:
            # gloo's threads let go of the last tensor a moment after it is there, for which they need the interpreter:
            # where that has ended by then they end the process by SIGABRT.
            time.sleep(LAST_WORDS_S)
            with contextlib.suppress(RuntimeError):  # a lost rank cannot leave the group
                dist.destroy_process_group()


def _own_card(name: str) -> str:
    """Return the device of this rank: of the machine's GPUs the one with its local rank's number."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return name


def _join(device: torch.device, timeout_s: float, identity: Mapping[str, Any]) -> None:
    """Create the default group, once all ranks have joined and were found equal."""
    from torch.distributed.rendezvous import rendezvous

    timeout = datetime.timedelta(seconds=timeout_s)
    address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if "EADDRINUSE" in str(error):
            reason = "that port is in use; give torchrun another --master-port"
        raise UserError(f"the ranks cannot meet at {address}: {reason}") from error
    store.set_timeout(timeout)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefix = f"localearn/{attempt}/{next(_joins)}"
    store = dist.PrefixStore(prefix, store)  # pyright: ignore[reportPrivateImportUsage]
    _greet(store, rank, size, timeout, identity)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except RuntimeError as error:
        raise UserError(f"the ranks cannot be joined by {backend}: {str(error).splitlines()[0]}") from error


def _greet(store: Any, rank: int, size: int, timeout: datetime.timedelta, identity: Mapping[str, Any]) -> None:
    """Send this rank's identity to rank 0, which compares all and answers whether they belong together."""
    store.set(f"hello/{rank}", json.dumps(dict(identity), default=str))
    if rank == 0:
        told = _heard(store, size, timeout)
        store.set("welcome", told)
    else:
        try:
            # Rank 0 waits as long for the slowest of the others before it answers.
            store.wait(["welcome"], timeout + datetime.timedelta(seconds=10))
        except RuntimeError as error:
            raise UserError(f"rank 0 did not answer within {timeout.total_seconds():g} s") from error
        told = store.get("welcome").decode()
    if told:
        raise shared(told, rank)


def _heard(store: Any, size: int, timeout: datetime.timedelta) -> str:
    """Return why the ranks cannot work together, empty where they can."""
    keys = [f"hello/{rank}" for rank in range(size)]
    try:
        store.wait(keys, timeout)
    except RuntimeError:
        absent = [str(rank) for rank, key in enumerate(keys) if not store.check([key])]
        names = f"rank{'s' if len(absent) > 1 else ''} {', '.join(absent)}"
        return f"{names} did not come within {timeout.total_seconds():g} s; {size} ranks were asked for"
    try:
        _compare([store.get(key).decode() for key in keys])
    except UserError as error:
        return str(error)
    return ""


def _compare(identities: list[str]) -> None:
    """Raise UserError for the first rank that differs from rank 0, naming the difference."""
    first, *others = (json.loads(text) for text in identities)
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if other.get(name) != value:
                raise UserError(f"rank {rank} has {name} {other.get(name)}, and rank 0 has {value}; they must be alike")
