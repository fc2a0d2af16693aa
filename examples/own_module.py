"""Train your own nn.Module block by block: `python examples/own_module.py`.

The net shares the module's parameters, so that the module is what has been trained, and its class needs no localearn
to load the weights.
"""

import torch
from safetensors.torch import load_file
from torch import nn

import localearn


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.BatchNorm2d(32), nn.ReLU())
        self.conv3 = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.BatchNorm2d(64), nn.ReLU())
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.conv3(self.conv2(self.conv1(x))).mean((2, 3)))


torch.manual_seed(0)
data = localearn.load("digits")
model = Mine()
net = localearn.Net.from_blocks(
    None,
    [model.conv1, model.conv2, model.conv3],
    model.fc,
    input_shape=data.input_shape,
    view=localearn.Pooled(),  # what a block's own head reads: the mean over the map's places
    module=model,
)
print(localearn.MonoForward(net).fit(data, epochs=6))

localearn.save_weights(net, "mine.safetensors")
fresh = Mine()
fresh.load_state_dict(load_file("mine.safetensors"))
batch = next(data.batches("test", 256))
correct = (fresh.eval()(batch.x).argmax(1) == batch.target).float().mean()
print(f"a fresh Mine() with these weights: accuracy {correct:.3f} on 256 rows of the test part")
