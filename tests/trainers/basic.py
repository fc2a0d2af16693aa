"""Where a second suite of a rule runs, one with another option than its configuration's."""

BASIC = ("mlp", "cnn", "gcn", "sage", "gat", "values", "tokens")
