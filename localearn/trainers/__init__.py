from typing import TYPE_CHECKING

from localearn import registry

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.trainers.backprop import Backprop as Backprop
    from localearn.trainers.base import Trainer as Trainer
    from localearn.trainers.estimators.base import EstimatorTrainer as EstimatorTrainer
    from localearn.trainers.estimators.forward_gradient import ForwardGradient as ForwardGradient
    from localearn.trainers.estimators.likelihood_ratio import LikelihoodRatio as LikelihoodRatio
    from localearn.trainers.feedback.alignment import FeedbackAlignment as FeedbackAlignment
    from localearn.trainers.feedback.alignment import SignSymmetry as SignSymmetry
    from localearn.trainers.feedback.backward_path import BackwardPathTrainer as BackwardPathTrainer
    from localearn.trainers.feedback.base import FeedbackTrainer as FeedbackTrainer
    from localearn.trainers.feedback.direct_feedback_alignment import DirectFeedbackAlignment as DirectFeedbackAlignment
    from localearn.trainers.feedback.pepita import Pepita as Pepita
    from localearn.trainers.feedback.product_feedback_alignment import (
        ProductFeedbackAlignment as ProductFeedbackAlignment,
    )
    from localearn.trainers.former import Stage as Stage
    from localearn.trainers.local.base import LocalTrainer as LocalTrainer
    from localearn.trainers.local.cafo import CaFo as CaFo
    from localearn.trainers.local.forward_forward import ForwardForward as ForwardForward
    from localearn.trainers.local.forward_gnn import ForwardGNN as ForwardGNN
    from localearn.trainers.local.local_loss import LocalLoss as LocalLoss
    from localearn.trainers.local.model_free import ModelFree as ModelFree
    from localearn.trainers.local.mono_forward import MonoForward as MonoForward
    from localearn.trainers.local.noprop import NoProp as NoProp
    from localearn.trainers.local.scalable_forward_forward import ScalableForwardForward as ScalableForwardForward
    from localearn.trainers.paired.counter_current import CounterCurrent as CounterCurrent
    from localearn.trainers.phases import Descent as Descent
    from localearn.trainers.phases import Phase as Phase
    from localearn.trainers.phases import Solve as Solve
    from localearn.trainers.shallow import Shallow as Shallow
    from localearn.trainers.state_feedback import StateFeedback as StateFeedback

__all__, __getattr__, __dir__ = registry.lazily(__name__)  # pyright: ignore[reportUnsupportedDunderAll]
