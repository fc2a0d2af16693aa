"""Answer questions over stdin and stdout: the program of `another_process.py`'s child, as an instrument's driver is.

    python experiments/model_free/instrument.py [measured=128] [seed=0]

A question is a header, two little-endian int64, rows and columns, and so many little-endian float32, row by row; an
answer has the same form. Nothing is unpickled, and needs no more than NumPy. The instrument is a camera behind a
scattering medium: the intensity of a random complex transmission, up to its saturation.
"""

import sys

import numpy as np

HEADER = 16  # bytes


def transmission(inputs: int, measured: int, seed: int) -> np.ndarray:
    """Return the complex couplings, (measured, inputs)."""
    parts = np.random.default_rng(seed).normal(size=(2, measured, inputs)) / np.sqrt(2 * inputs)
    return parts[0] + 1j * parts[1]


def intensity(u: np.ndarray, couplings: np.ndarray) -> np.ndarray:
    """Return what is measured of rows u, (N, n); (N, measured)."""
    seen = np.abs(u @ couplings.T) ** 2
    return seen / (1 + seen / 4)


def main(arguments: list[str]) -> None:
    """Answer until stdin ends."""
    options = dict(argument.split("=", 1) for argument in arguments)
    measured, seed = int(options.get("measured", 128)), int(options.get("seed", 0))
    couplings: dict[int, np.ndarray] = {}
    while len(header := sys.stdin.buffer.read(HEADER)) == HEADER:
        rows, columns = (int(side) for side in np.frombuffer(header, "<i8"))
        u = np.frombuffer(sys.stdin.buffer.read(4 * rows * columns), "<f4").reshape(rows, columns)
        if columns not in couplings:
            couplings[columns] = transmission(columns, measured, seed)
        y = intensity(u, couplings[columns]).astype("<f4")
        sys.stdout.buffer.write(np.array(y.shape, "<i8").tobytes() + y.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
