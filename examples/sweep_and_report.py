"""Sweep over rules and seeds, and compare them in a report: `python examples/sweep_and_report.py`.

The same two commands in a shell:

    python -m localearn.run -m algo=mono_forward,backprop seed=0,1,2 ... hydra.sweep.dir=sweep
    python -m localearn.report sweep out=sweep/report

A sweep's runs may train at once; what is compared by seconds or joules is run one after another, interleaved, by
`python -m localearn.compare`.
"""

import subprocess
import sys

options = ["epochs=3", "net.widths=[64,64]", "dataset.train_size=600", "progress=false"]
folders = "hydra.sweep.dir=sweep", "out=sweep/${hydra:job.num}"
sweep = ["localearn.run", "-m", "algo=mono_forward,backprop", "seed=0,1,2", *options, *folders]
report = ["localearn.report", "sweep", "out=sweep/report"]
for command in (sweep, report):
    print("$ python -m", *command, flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)
print(open("sweep/report/report.md", encoding="utf-8").read()[:1500])
