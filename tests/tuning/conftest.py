import pytest

TINY = (
    "algo=mono_forward", "dataset=digits", "dataset.train_size=80", "net.widths=[4]", "epochs=3", "batch_size=40",
    "energy.enabled=false",
)  # fmt: skip


@pytest.fixture
def tiny():
    """Overrides of runs of a fraction of a second."""
    return list(TINY)
