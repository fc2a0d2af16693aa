"""Export a trained net to ONNX and serve it by ONNX Runtime: `python examples/export_and_serve.py`.

The file is checked against the net, on rows that it never saw, before it is left in place. What serves it needs numpy
and onnxruntime alone. `pip install "localearn[onnx]"`
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

import localearn
from localearn.export import export


def trained(folder: Path) -> Path:
    """Train a net whose classes have names, and return its ONNX file."""
    torch.manual_seed(0)
    net = localearn.MLP(data.input_shape, data.classes, widths=(128, 128))
    print(localearn.MonoForward(net).fit(data, epochs=10, out=folder / "run"))
    difference = export(folder / "run", "onnx", folder / "wine.onnx", net=net)
    print(f"ONNX's outputs are the net's to {difference:.0e}")
    return folder / "wine.onnx"


class Server:
    """Answers rows with the names of their classes; it knows the file alone."""

    def __init__(self, path: Path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.names = json.loads(self.session.get_modelmeta().custom_metadata_map["class_names"])

    def __call__(self, rows: np.ndarray) -> list[str]:
        (logits,) = self.session.run(None, {"x": rows.astype(np.float32)})
        return [self.names[k] for k in logits.argmax(1)]


generator = np.random.default_rng(0)
centres = {"barolo": -2.0, "barbera": 0.0, "grignolino": 2.0}
names = np.repeat(list(centres), 200)
data = localearn.data.from_arrays(generator.normal([[centres[name]] * 13 for name in names]), names)

with tempfile.TemporaryDirectory() as folder:
    answer = Server(trained(Path(folder)))
    batch = next(data.batches("test", 100))  # normalised, as the net takes rows
    right = np.mean(np.array(answer(batch.x.numpy())) == np.array(data.class_names)[batch.target])
    print(f"one row: {answer(batch.x[:1].numpy())}; of {len(batch.target)} rows {right:.0%} are right")
