import pytest

from localearn.cli import run

QUIET = ["energy.enabled=false", "progress=false", "device=cpu"]
SMALL = ["dataset=digits", "net=mlp_2x256", "net.widths=[12,8]", "dataset.train_size=300", *QUIET]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return the folder of three runs on the digits, by rule, the last of which left out classes 3 and 8."""
    root = tmp_path_factory.mktemp("runs")
    for rule, epochs, more in (
        ("backprop", 12, []),
        ("mono_forward", 12, ["diagnose=alignment"]),
        ("forward_forward", 12, ["dataset.leave_out=[3,8]"]),
    ):
        assert run.main([f"algo={rule}", f"epochs={epochs}", *SMALL, f"out={root / rule}", *more]) == 0
    return root
