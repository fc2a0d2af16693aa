from localearn.trainers.local.base import LocalTrainer
from localearn.trainers.local.mono_forward import MonoForward

__all__ = ["LocalTrainer", "MonoForward"]
