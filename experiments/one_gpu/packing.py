"""The records of a call, packed flat into a few tar files of a limited size, which a machine's lender sends back."""

import contextlib
import tarfile
from collections.abc import Sequence
from pathlib import Path

from localearn.files import atomic_write
from localearn.records import RunFolder

FILES, FILE_BYTES = 4, 16 * 2**20  # 64 MiB in all
WEIGHTS = (".pt", ".safetensors")


def pack(work: Path, out: Path, first: Sequence[str], file_bytes: int = FILE_BYTES) -> tuple[list[Path], list[str]]:
    """Pack the records flat into `out`, into files of a limited size and number.

    Args:
        work: the records' folder.
        out: where OUT/records-N.tar are written, over earlier ones: whole ones are there at every moment.
        first: names in `work` in their order of worth, before all others. Weights come last, those of interrupted runs,
            which go on with them; a finished run's are not packed.
        file_bytes: of each file, at most.

    Returns:
        The files, and the names of what found no place.

    """
    order = {name: place for place, name in enumerate(first)}
    paths = [path for path in work.rglob("*") if path.is_file() and not path.is_symlink()]
    names = sorted(
        (path.relative_to(work) for path in paths if path.suffix not in WEIGHTS or _goes_on(path.parent)),
        key=lambda name: (name.suffix in WEIGHTS, order.get(name.parts[0], len(order)), name.parts),
    )
    chosen: list[list[Path]] = []
    sizes: list[int] = []
    left_out = []
    for name in names:
        # Its bytes in blocks of 512, behind a header that is longer for a long name.
        size = 2048 + 512 * (1 + (work / name).stat().st_size // 512)
        place = next((number for number, held in enumerate(sizes) if held + size <= file_bytes), len(sizes))
        if place == FILES or tarfile.RECORDSIZE + size > file_bytes:
            left_out.append(str(name))
            continue
        if place == len(sizes):
            chosen.append([])
            sizes.append(tarfile.RECORDSIZE)
        chosen[place].append(name)
        sizes[place] += size
    files = [out / f"records-{number}.tar" for number in range(len(chosen))]
    with contextlib.ExitStack() as written:  # all take their places together, once the last one is whole
        for path, held in zip(files, chosen, strict=True):
            temporary = written.enter_context(atomic_write(path))
            with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as archive:
                for name in held:
                    archive.add(work / name, arcname=str(name))
    for earlier in set(out.glob("records-[0-9].tar")) - set(files):
        earlier.unlink()
    return files, left_out


def _goes_on(folder: Path) -> bool:
    """Return whether a run's folder is of one that was interrupted, or whose record is not written yet."""
    return RunFolder(folder).status() in ("interrupted", "unfinished")
