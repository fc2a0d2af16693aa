"""Train a ResNet-18 of torchvision's without backpropagation through it: `python examples/torchvision_resnet.py`.

Each residual block learns from a head of its own; none of them sees a gradient of another. With `weights="DEFAULT"`
instead of None it begins from ImageNet's weights, which torchvision downloads.
"""

import torch
import torchvision

import localearn

torch.manual_seed(0)
data = localearn.load("digits", train_size=600)
model = torchvision.models.resnet18(weights=None, num_classes=10)
# For images of 8x8 in grey, as usual for small ones: no stride and no pooling before the first stage.
model.conv1 = torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)
model.maxpool = torch.nn.Identity()

net = localearn.Net.from_torchvision(model, data.input_shape)
print(f"{net.depth} blocks, {sum(p.numel() for p in net.parameters()):,} parameters")
record = localearn.MonoForward(net).fit(data, epochs=2, batch_size=64)
print(record)

# The model itself has been trained: it is what torchvision built, and saves and loads as such.
torch.save(model.state_dict(), "resnet18.pt")
print("torchvision's own names:", *list(model.state_dict())[:3], "...")
