"""Write clicks.csv, made-up clicks of users on items: `python experiments/dfa_at_scale/clicks.py [out=clicks.csv]`.

User u clicks on item i by chance, with probability sigmoid(a_u + b_i + 1.5 p_u q_i): tastes and kinds are vectors p
and q of 4 values, normal as a and b are, and a user meets items in an order of chance. The best AUC that there is, that
of the probabilities themselves on the test rows, is printed. The same file comes out everywhere.
"""

import sys
from pathlib import Path

import numpy as np

from localearn.files import replace_text

USERS, ITEMS, EACH, TASTES = 400, 200, 60, 4


def main(arguments: list[str]) -> None:
    """Write the file and print what can be known of it."""
    (path,) = [argument.removeprefix("out=") for argument in arguments] or ["clicks.csv"]
    random = np.random.RandomState(0)
    a, b = random.randn(USERS), random.randn(ITEMS)
    p, q = random.randn(USERS, TASTES), random.randn(ITEMS, TASTES)
    lines, last = ["user,item,click,time"], []
    for user in range(USERS):
        for time, item in enumerate(random.permutation(ITEMS)[:EACH]):
            chance = 1 / (1 + np.exp(-(a[user] + b[item] + 1.5 * p[user] @ q[item])))
            click = int(random.rand() < chance)
            lines.append(f"u{user},i{item},{click},{time}")
        last.append((chance, click))
    replace_text(Path(path), "\n".join(lines) + "\n")
    chances, clicks = (np.array(column) for column in zip(*last, strict=True))
    above = chances[clicks == 1][:, None] > chances[clicks == 0]
    print(f"{path}: {len(lines) - 1:,} rows; the probabilities' own AUC on the test rows is {above.mean():.4f}")


if __name__ == "__main__":
    main(sys.argv[1:])
