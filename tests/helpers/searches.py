"""The command line of a search that takes a second."""

TINY = (
    "algo=mono_forward", "dataset=digits", "dataset.train_size=80", "net.widths=[4]", "epochs=3", "batch_size=40",
    "energy.enabled=false",
)  # fmt: skip
