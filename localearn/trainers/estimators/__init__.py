from localearn.trainers.estimators.base import EstimatorTrainer
from localearn.trainers.estimators.forward_gradient import ForwardGradient

__all__ = ["EstimatorTrainer", "ForwardGradient"]
