from localearn.trainers.backprop import Backprop
from localearn.trainers.base import Stage, Trainer
from localearn.trainers.estimators import EstimatorTrainer, ForwardGradient
from localearn.trainers.feedback import DirectFeedbackAlignment, FeedbackTrainer
from localearn.trainers.local import CaFo, LocalTrainer, MonoForward

__all__ = [
    "Backprop",
    "CaFo",
    "DirectFeedbackAlignment",
    "EstimatorTrainer",
    "FeedbackTrainer",
    "ForwardGradient",
    "LocalTrainer",
    "MonoForward",
    "Stage",
    "Trainer",
]
