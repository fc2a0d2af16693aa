"""Sweep over rules and seeds, and compare them in a report: `python examples/sweep_and_report.py`.

The two commands, shown as they run, are for a shell as well. A sweep's runs may train at once (docs/sweeps.md);
what is compared by seconds or joules is run one after another, interleaved, by `localearn compare`.
"""

import subprocess
import sys
from pathlib import Path

folder = Path("sweep")
folder.mkdir(exist_ok=True)
options = ["epochs=15", "net.widths=[64,64]", "dataset.train_size=600", "progress=false"]
sweep = ["localearn.run", "-m", "algo=mono_forward,backprop", "seed=0,1,2", *options]
report = ["localearn.report", "runs", "out=report"]
for command in (sweep, report):
    print("$ python -m", *command, flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True, cwd=folder)

text = (folder / "report" / "report.md").read_text(encoding="utf-8")
print(text[:1800])
print("open", folder / "report" / "report.html")
