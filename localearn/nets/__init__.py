from localearn.inputs import InputSpec
from localearn.nets.block import Block
from localearn.nets.classifiers import MobileNetV3, Torchvision
from localearn.nets.conv import CNN, LeNet, ResNet
from localearn.nets.deepfm import DeepFM
from localearn.nets.denoiser import Denoiser
from localearn.nets.gnn import GNN
from localearn.nets.mlp import MLP
from localearn.nets.net import Net
from localearn.nets.patches import Mixer, ViT
from localearn.nets.physical import Opaque, Physical
from localearn.nets.recurrent import Recurrent
from localearn.nets.transformer import Transformer
from localearn.nets.views import Flattened, LastPosition, Normalized, PerPosition, Pooled, View
from localearn.nets.weights import load_weights, save_weights

__all__ = [
    "CNN",
    "GNN",
    "MLP",
    "Block",
    "DeepFM",
    "Denoiser",
    "Flattened",
    "InputSpec",
    "LastPosition",
    "LeNet",
    "Mixer",
    "MobileNetV3",
    "Net",
    "Normalized",
    "Opaque",
    "PerPosition",
    "Physical",
    "Pooled",
    "Recurrent",
    "ResNet",
    "Torchvision",
    "Transformer",
    "ViT",
    "View",
    "load_weights",
    "save_weights",
]
