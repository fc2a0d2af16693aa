"""localearn trains neural networks without backpropagation, and measures honestly what that costs and saves."""

from localearn.data import Batch, Data, load
from localearn.defaults import recipe
from localearn.errors import Unsupported, UserError
from localearn.nets import CNN, GNN, MLP, Block, LeNet, Net, ResNet
from localearn.tasks import Autoencoding, Classification, Metric, MultiLabel, Regression, Task
from localearn.trainers import (
    Backprop,
    BackwardPathTrainer,
    CaFo,
    DirectFeedbackAlignment,
    EstimatorTrainer,
    FeedbackAlignment,
    FeedbackTrainer,
    ForwardForward,
    ForwardGradient,
    LikelihoodRatio,
    LocalTrainer,
    MonoForward,
    Pepita,
    ProductFeedbackAlignment,
    SignSymmetry,
    Trainer,
)
from localearn.training import Callback, Record, fit, load_net

__version__ = "0.1.0"

__all__ = [
    "CNN",
    "GNN",
    "MLP",
    "Autoencoding",
    "Backprop",
    "BackwardPathTrainer",
    "Batch",
    "Block",
    "CaFo",
    "Callback",
    "Classification",
    "Data",
    "DirectFeedbackAlignment",
    "EstimatorTrainer",
    "FeedbackAlignment",
    "FeedbackTrainer",
    "ForwardForward",
    "ForwardGradient",
    "LeNet",
    "LikelihoodRatio",
    "LocalTrainer",
    "Metric",
    "MonoForward",
    "MultiLabel",
    "Net",
    "Pepita",
    "ProductFeedbackAlignment",
    "Record",
    "Regression",
    "ResNet",
    "SignSymmetry",
    "Task",
    "Trainer",
    "Unsupported",
    "UserError",
    "fit",
    "load",
    "load_net",
    "recipe",
]
