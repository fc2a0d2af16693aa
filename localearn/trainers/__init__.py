from localearn.trainers.backprop import Backprop
from localearn.trainers.base import Stage, Trainer
from localearn.trainers.estimators import EstimatorTrainer, ForwardGradient, LikelihoodRatio
from localearn.trainers.feedback import (
    BackwardPathTrainer,
    DirectFeedbackAlignment,
    FeedbackAlignment,
    FeedbackTrainer,
    Pepita,
    ProductFeedbackAlignment,
    SignSymmetry,
)
from localearn.trainers.local import CaFo, ForwardForward, LocalLoss, LocalTrainer, MonoForward
from localearn.trainers.phases import Descent, Phase, Solve

__all__ = [
    "Backprop",
    "BackwardPathTrainer",
    "CaFo",
    "Descent",
    "DirectFeedbackAlignment",
    "EstimatorTrainer",
    "FeedbackAlignment",
    "FeedbackTrainer",
    "ForwardForward",
    "ForwardGradient",
    "LikelihoodRatio",
    "LocalLoss",
    "LocalTrainer",
    "MonoForward",
    "Pepita",
    "Phase",
    "ProductFeedbackAlignment",
    "SignSymmetry",
    "Solve",
    "Stage",
    "Trainer",
]
