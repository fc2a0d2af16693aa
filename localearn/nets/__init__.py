from localearn.inputs import InputSpec
from localearn.nets.block import Block
from localearn.nets.cnn import CNN
from localearn.nets.deepfm import DeepFM
from localearn.nets.gnn import GNN
from localearn.nets.lenet import LeNet
from localearn.nets.mlp import MLP
from localearn.nets.net import Net
from localearn.nets.resnet import ResNet
from localearn.nets.views import Flattened, PerPosition, Pooled, View

__all__ = [
    "CNN",
    "GNN",
    "MLP",
    "Block",
    "DeepFM",
    "Flattened",
    "InputSpec",
    "LeNet",
    "Net",
    "PerPosition",
    "Pooled",
    "ResNet",
    "View",
]
