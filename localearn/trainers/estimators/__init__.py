from typing import TYPE_CHECKING

from localearn import registry

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.trainers.estimators.base import EstimatorTrainer as EstimatorTrainer
    from localearn.trainers.estimators.forward_gradient import ForwardGradient as ForwardGradient
    from localearn.trainers.estimators.likelihood_ratio import LikelihoodRatio as LikelihoodRatio

__all__, __getattr__, __dir__ = registry.lazily(__name__)  # pyright: ignore[reportUnsupportedDunderAll]
