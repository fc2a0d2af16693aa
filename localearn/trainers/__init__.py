from localearn.trainers.backprop import Backprop
from localearn.trainers.base import Stage, Trainer
from localearn.trainers.estimators import EstimatorTrainer, ForwardGradient
from localearn.trainers.feedback import DirectFeedbackAlignment, FeedbackTrainer
from localearn.trainers.local import ForwardForward, LocalTrainer, MonoForward

__all__ = [
    "Backprop",
    "DirectFeedbackAlignment",
    "EstimatorTrainer",
    "FeedbackTrainer",
    "ForwardForward",
    "ForwardGradient",
    "LocalTrainer",
    "MonoForward",
    "Stage",
    "Trainer",
]
