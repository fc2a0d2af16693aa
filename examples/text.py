"""Train a small transformer on a text and let it write: `python examples/text.py [FILE]`.

Without a file it is the English of Python's own help. Each block learns to predict the next character from its own
output, so that there is no backward pass through the stack.
"""

import sys

import torch

import localearn

torch.manual_seed(0)
path = sys.argv[1] if len(sys.argv) > 1 else None
# A window starts every 600 characters, so that the example takes seconds; without `stride` all of the text is seen.
data = localearn.data.text(path, window=64, stride=600, val_fraction=0.02, test_fraction=0.02)
net = localearn.Transformer(
    data.input_shape, data.task.outputs, vocabulary=data.vocabulary, width=64, layers=2, heads=4
)
record = localearn.MonoForward(net).fit(data, epochs=4)

print(record)
print(f"{record.metric('bits_per_character'):.2f} bits a character on the test part")
print(localearn.generate(net, "The ", length=120, temperature=0.7))
