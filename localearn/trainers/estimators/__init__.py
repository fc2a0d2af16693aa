from localearn.trainers.estimators.base import EstimatorTrainer
from localearn.trainers.estimators.forward_gradient import ForwardGradient
from localearn.trainers.estimators.likelihood_ratio import LikelihoodRatio

__all__ = ["EstimatorTrainer", "ForwardGradient", "LikelihoodRatio"]
