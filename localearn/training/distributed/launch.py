"""How the processes that torchrun starts find each other, and find out whether they belong together."""

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
_joins = itertools.count()  # of this process: a store that outlives a group, or a rank, keeps what was said in it


@contextlib.contextmanager
def joined(settings: Settings, identity: Mapping[str, Any]) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the other ranks for the while, where there are any; give this one's view of them, and its device.

    identity: what must be alike on all ranks, by name: versions, options. A group that the caller has made already is
    used, and left. Raises UserError, on every rank, where one does not come in `rank_timeout_s` or is otherwise.
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
            with contextlib.suppress(RuntimeError):  # a lost rank cannot take leave
                dist.destroy_process_group()


def _own_card(name: str) -> str:
    """Return the device of this rank: of the machine's cards the one with the rank's number on the machine."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return name


def _join(device: torch.device, timeout_s: float, identity: Mapping[str, Any]) -> None:
    """Make the default group, once all ranks are there and have been found alike."""
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
    """Have rank 0 hear from every other rank what it is, and tell all whether they belong together."""
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
    """Return what keeps the ranks from working together, nothing where nothing does."""
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
    """Raise UserError for the first rank that is not as rank 0 is, naming what differs."""
    first, *others = (json.loads(text) for text in identities)
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if other.get(name) != value:
                raise UserError(f"rank {rank} has {name} {other.get(name)}, and rank 0 has {value}; they must be alike")
