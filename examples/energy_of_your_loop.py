"""Meter the joules of any torch code, here an ordinary training loop: `python examples/energy_of_your_loop.py`.

Each part of the machine says whether it is measured, estimated or absent. What is absent is None, never 0, and figures
with different labels are never added.
"""

import torch
from torch import nn

from localearn.energy import Meter

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).to(device)
x, y = torch.randn(4096, 64, device=device), torch.randint(10, (4096,), device=device)
optimizer = torch.optim.Adam(model.parameters())

with Meter(device, country="POL") as meter:  # the country's grid gives the carbon
    for _ in range(20):
        with meter.window("train"):  # entered as often as you like; "eval", "setup", ... are others
            for rows in torch.randperm(len(x), device=device).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
        with meter.window("eval"), torch.no_grad():
            accuracy = (model(x).argmax(1) == y).float().mean()

print(meter.describe())
for window in ("train", "eval"):
    joules = meter.energy_j(window)
    print(f"{window}: {meter.duration_s(window):.2f} s,", "joules unknown" if joules is None else f"{joules:.1f} J")
report = meter.report()
print(f"the part that trains is {report['energy']['label']} by {report['energy']['source']}")
print("kg CO2e:", report["co2e_kg"])
