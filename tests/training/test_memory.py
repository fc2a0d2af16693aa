"""A run's peak of memory, and memory that runs out."""

import pytest
import torch

import localearn
from localearn.errors import UserError
from localearn.training.memory import PeakMemory, out_of_memory_error


@pytest.fixture(scope="module")
def digits() -> localearn.Data:
    return localearn.load("digits", train_size=60)


def test_a_full_memory_is_told(digits, tmp_path):
    class TooMuch(localearn.MonoForward):
        def gradients(self, batch):
            return {"loss": torch.empty(2**62, dtype=torch.uint8)}

    with pytest.raises(UserError, match=r"out of memory at batch_size=16; try a smaller one"):
        TooMuch(localearn.MLP(digits.input_shape, digits.classes, widths=(8,))).fit(
            digits, batch_size=16, out=tmp_path / "run"
        )
    with pytest.raises(UserError), out_of_memory_error("x=1", "x=0"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="another"), out_of_memory_error("x=1", "x=0"):
        raise RuntimeError("another")


@pytest.mark.parametrize("size", [10**12, 10**20])
def test_sizes_beyond_any_memory_are_told(size):
    with pytest.raises(UserError, match="out of memory at x=1; try x=0"), out_of_memory_error("x=1", "x=0"):
        torch.empty(size, 10**6)


def test_peak_memory_is_that_of_the_run_alone():
    device = torch.device("cpu")
    before = PeakMemory(device)
    if before.read()["process_bytes"] is None:
        pytest.skip("this system does not tell a process's peak memory")
    block = torch.ones(64 * 2**20)  # 256 MiB, every page touched
    high = before.read()["process_bytes"]
    del block
    low = PeakMemory(device).read()["process_bytes"]
    assert high is not None
    assert low is not None
    if high == low:
        pytest.skip("this system does not let a process set its peak back")
    assert high - low > 200 * 2**20
