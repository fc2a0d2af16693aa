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
from localearn.trainers.local import (
    CaFo,
    ForwardForward,
    ForwardGNN,
    LocalLoss,
    LocalTrainer,
    ModelFree,
    MonoForward,
    NoProp,
    ScalableForwardForward,
)
from localearn.trainers.paired import CounterCurrent
from localearn.trainers.phases import Descent, Phase, Solve
from localearn.trainers.shallow import Shallow
from localearn.trainers.state_feedback import StateFeedback

__all__ = [
    "Backprop",
    "BackwardPathTrainer",
    "CaFo",
    "CounterCurrent",
    "Descent",
    "DirectFeedbackAlignment",
    "EstimatorTrainer",
    "FeedbackAlignment",
    "FeedbackTrainer",
    "ForwardForward",
    "ForwardGNN",
    "ForwardGradient",
    "LikelihoodRatio",
    "LocalLoss",
    "LocalTrainer",
    "ModelFree",
    "MonoForward",
    "NoProp",
    "Pepita",
    "Phase",
    "ProductFeedbackAlignment",
    "ScalableForwardForward",
    "Shallow",
    "SignSymmetry",
    "Solve",
    "Stage",
    "StateFeedback",
    "Trainer",
]
