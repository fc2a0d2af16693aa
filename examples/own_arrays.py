"""Train a rule on your own arrays: `python examples/own_arrays.py`.

x is (rows, features), or (rows, height, width) for images; y has labels, words or numbers. What `fit` is given stays on
your side: it splits the rows in three, normalises them by the training part, and reads the test part once, at the end.
"""

import numpy as np
import torch

import localearn

generator = np.random.default_rng(0)
x = generator.normal(size=(1200, 20))
y = np.where((x[:, :3] ** 2).sum(1) > 2.4, "outside", "inside")  # the surface of a ball: no line separates the two

torch.manual_seed(0)
net = localearn.MLP((20,), 2, widths=(128, 128))
record = localearn.MonoForward(net).fit((x, y), epochs=40, patience=10)

print(record)
print(f"test accuracy {record.metric('accuracy'):.3f}, best epoch {record.best_epoch}")
print("the net is an ordinary module:", net(torch.zeros(2, 20)).shape)
