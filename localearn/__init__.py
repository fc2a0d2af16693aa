"""localearn trains neural networks without backpropagation, and measures honestly what that costs and saves."""

from localearn.data import Batch, Data, load
from localearn.errors import Unsupported, UserError
from localearn.nets import CNN, GNN, MLP, Block, Net
from localearn.trainers import (
    Backprop,
    DirectFeedbackAlignment,
    EstimatorTrainer,
    FeedbackTrainer,
    ForwardGradient,
    LikelihoodRatio,
    LocalTrainer,
    MonoForward,
    Pepita,
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
    "Data",
    "DirectFeedbackAlignment",
    "EstimatorTrainer",
    "FeedbackTrainer",
    "ForwardGradient",
    "LikelihoodRatio",
    "LocalTrainer",
    "MonoForward",
    "Net",
    "Pepita",
    "Record",
    "Trainer",
    "Unsupported",
    "UserError",
    "fit",
    "load",
    "load_net",
]
