from localearn.trainers.local.base import LocalTrainer
from localearn.trainers.local.cafo import CaFo
from localearn.trainers.local.forward_forward import ForwardForward
from localearn.trainers.local.forward_gnn import ForwardGNN
from localearn.trainers.local.local_loss import LocalLoss
from localearn.trainers.local.model_free import ModelFree
from localearn.trainers.local.mono_forward import MonoForward
from localearn.trainers.local.noprop import NoProp
from localearn.trainers.local.scalable_forward_forward import ScalableForwardForward

__all__ = [
    "CaFo",
    "ForwardForward",
    "ForwardGNN",
    "LocalLoss",
    "LocalTrainer",
    "ModelFree",
    "MonoForward",
    "NoProp",
    "ScalableForwardForward",
]
