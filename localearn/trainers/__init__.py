from localearn.trainers.backprop import Backprop
from localearn.trainers.base import Stage, Trainer
from localearn.trainers.estimators import EstimatorTrainer, ForwardGradient, LikelihoodRatio
from localearn.trainers.feedback import DirectFeedbackAlignment, FeedbackTrainer, Pepita
from localearn.trainers.local import LocalTrainer, MonoForward

__all__ = [
    "Backprop",
    "DirectFeedbackAlignment",
    "EstimatorTrainer",
    "FeedbackTrainer",
    "ForwardGradient",
    "LikelihoodRatio",
    "LocalTrainer",
    "MonoForward",
    "Pepita",
    "Stage",
    "Trainer",
]
