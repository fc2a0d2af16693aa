"""localearn trains neural networks without backpropagation, and measures honestly what that costs and saves."""

from localearn.data import Batch, Data, load
from localearn.errors import Unsupported, UserError
from localearn.nets import CNN, GNN, MLP, Block, Net
from localearn.trainers import (
    Backprop,
    CaFo,
    DirectFeedbackAlignment,
    EstimatorTrainer,
    FeedbackTrainer,
    ForwardGradient,
    LocalTrainer,
    MonoForward,
    Trainer,
)
from localearn.training import Record, fit, load_net

__version__ = "0.1.0"

__all__ = [
    "CNN",
    "GNN",
    "MLP",
    "Backprop",
    "Batch",
    "Block",
    "CaFo",
    "Data",
    "DirectFeedbackAlignment",
    "EstimatorTrainer",
    "FeedbackTrainer",
    "ForwardGradient",
    "LocalTrainer",
    "MonoForward",
    "Net",
    "Record",
    "Trainer",
    "Unsupported",
    "UserError",
    "fit",
    "load",
    "load_net",
]
