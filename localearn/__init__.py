"""localearn trains neural networks without backpropagation, and measures honestly what that costs and saves."""

from localearn.data import Batch, Data, load
from localearn.defaults import recipe
from localearn.errors import Unsupported, UserError
from localearn.nets import CNN, GNN, MLP, Block, LeNet, Mixer, MobileNetV3, Net, ResNet, Torchvision, ViT
from localearn.nets.views import PerPosition, Pooled
from localearn.tasks import Classification, Metric, Regression, Task
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
    "Mixer",
    "MobileNetV3",
    "MonoForward",
    "Net",
    "Pepita",
    "PerPosition",
    "Pooled",
    "ProductFeedbackAlignment",
    "Record",
    "Regression",
    "ResNet",
    "SignSymmetry",
    "Task",
    "Torchvision",
    "Trainer",
    "Unsupported",
    "UserError",
    "ViT",
    "fit",
    "load",
    "load_net",
    "recipe",
]
