"""The reader of runs' folders, which returns their findings."""

import contextlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from localearn.analysing.findings import ROWS, THRESHOLD, Findings, check_analysable, examine
from localearn.errors import UserError
from localearn.printing import visible
from localearn.records import Record, read_history, read_record
from localearn.training.loading import load_rule
from localearn.training.runtime import select_device


def read_findings(
    folders: Sequence[str | Path],
    *,
    threshold: float = THRESHOLD,
    rows: int = ROWS,
    device: str = "auto",
    trust: Collection[str] = (),
) -> list[Findings]:
    """Return the findings of the rules in runs' folders, in the order of the folders.

    Args:
        folders: the runs'.
        threshold: as of `examine`.
        rows: as of `examine`.
        device: as of a run.
        trust: as of `load_rule`.

    Raises:
        UserError: when a folder's rule cannot be built again, see `load_rule`, or is of data without classes.

    """
    paths = [Path(folder).expanduser() for folder in folders]
    twice = [path for path, times in Counter(path.resolve() for path in paths).items() if times > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice")
    records = [read_record(path) for path in paths]
    findings = []
    for path, record, label in zip(paths, records, _labels(paths, records), strict=True):
        data, trainer = load_rule(path, trust=trust)
        check_analysable(trainer, data)
        place = select_device(device)
        history: list[dict[str, object]] = []
        with contextlib.suppress(UserError):  # a folder without metrics.jsonl has no angles
            history, _ = read_history(path)
        findings.append(
            examine(
                trainer.to(place),
                data.to(place),
                label=label,
                threshold=threshold,
                rows=rows,
                algo=visible(record.algo),
                dataset=visible(record.dataset),
                net=visible(record.net),
                folder=visible(path.as_posix()),
                history=tuple(history),
            )
        )
    return findings


def _labels(paths: Sequence[Path], records: Sequence[Record]) -> list[str]:
    """Return what each run is called: its rule where those differ, else its folder's name."""
    for names in (
        [record.algo for record in records],
        [f"{record.algo}, {record.dataset}" for record in records],
        [path.resolve().name for path in paths],
    ):
        if len(set(names)) == len(names):
            return [visible(name) for name in names]
    return [visible(path.as_posix()) for path in paths]
