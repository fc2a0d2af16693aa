from typing import TYPE_CHECKING

from localearn import registry

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.inputs import InputSpec as InputSpec
    from localearn.nets.block import Block as Block
    from localearn.nets.classifiers import MobileNetV3 as MobileNetV3
    from localearn.nets.classifiers import Torchvision as Torchvision
    from localearn.nets.conv import CNN as CNN
    from localearn.nets.conv import LeNet as LeNet
    from localearn.nets.conv import ResNet as ResNet
    from localearn.nets.deepfm import DeepFM as DeepFM
    from localearn.nets.denoiser import Denoiser as Denoiser
    from localearn.nets.gnn import GNN as GNN
    from localearn.nets.mlp import MLP as MLP
    from localearn.nets.net import Net as Net
    from localearn.nets.patches import Mixer as Mixer
    from localearn.nets.patches import ViT as ViT
    from localearn.nets.physical import Opaque as Opaque
    from localearn.nets.physical import Physical as Physical
    from localearn.nets.recurrent import Recurrent as Recurrent
    from localearn.nets.transformer import Transformer as Transformer
    from localearn.nets.views import Flattened as Flattened
    from localearn.nets.views import LastPosition as LastPosition
    from localearn.nets.views import Normalized as Normalized
    from localearn.nets.views import PerPosition as PerPosition
    from localearn.nets.views import Pooled as Pooled
    from localearn.nets.views import View as View
    from localearn.nets.weights import load_weights as load_weights
    from localearn.nets.weights import save_weights as save_weights

__all__, __getattr__, __dir__ = registry.lazily(__name__)  # pyright: ignore[reportUnsupportedDunderAll]
