"""Where a second suite of a rule runs, one with another option than its configuration's."""

BASIC = ("mlp", "cnn", "gcn", "sage", "gat", "values", "tokens")

IN_SHORT = {"fp32": ("mlp", "gcn", "tokens"), "bf16": ("mlp",)}
"""Where it learns its task unless all is asked for: rows, a graph and positions, which no option treats alike."""
