"""localearn trains neural networks without backpropagation, and measures honestly what that costs and saves."""

from typing import TYPE_CHECKING

from localearn import moved, registry

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.data.base import Batch as Batch
    from localearn.data.base import Data as Data
    from localearn.data.generation import generate as generate
    from localearn.data.sources import load as load
    from localearn.defaults import recipe as recipe
    from localearn.errors import Unsupported as Unsupported
    from localearn.errors import UserError as UserError
    from localearn.inputs import InputSpec as InputSpec
    from localearn.nets.block import Block as Block
    from localearn.nets.classifiers import MobileNetV3 as MobileNetV3
    from localearn.nets.classifiers import Torchvision as Torchvision
    from localearn.nets.conv import CNN as CNN
    from localearn.nets.conv import LeNet as LeNet
    from localearn.nets.conv import ResNet as ResNet
    from localearn.nets.deepfm import DeepFM as DeepFM
    from localearn.nets.denoiser import Denoiser as Denoiser
    from localearn.nets.gnn import GNN as GNN
    from localearn.nets.mlp import MLP as MLP
    from localearn.nets.net import Net as Net
    from localearn.nets.patches import Mixer as Mixer
    from localearn.nets.patches import ViT as ViT
    from localearn.nets.physical import Physical as Physical
    from localearn.nets.recurrent import Recurrent as Recurrent
    from localearn.nets.transformer import Transformer as Transformer
    from localearn.nets.views import Flattened as Flattened
    from localearn.nets.views import PerPosition as PerPosition
    from localearn.nets.views import Pooled as Pooled
    from localearn.nets.weights import load_weights as load_weights
    from localearn.nets.weights import save_weights as save_weights
    from localearn.records.record import Record as Record
    from localearn.tasks.autoencoding import Autoencoding as Autoencoding
    from localearn.tasks.base import Metric as Metric
    from localearn.tasks.base import Task as Task
    from localearn.tasks.classification import Classification as Classification
    from localearn.tasks.language import LanguageModelling as LanguageModelling
    from localearn.tasks.links import LinkPrediction as LinkPrediction
    from localearn.tasks.multilabel import MultiLabel as MultiLabel
    from localearn.tasks.regression import Regression as Regression
    from localearn.tasks.views import ViewSynthesis as ViewSynthesis
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
    from localearn.trainers.shallow import Shallow as Shallow
    from localearn.trainers.state_feedback import StateFeedback as StateFeedback
    from localearn.training.callbacks import Callback as Callback
    from localearn.training.fit import fit as fit
    from localearn.training.loading import load_net as load_net
    from localearn.training.loading import load_rule as load_rule

__version__ = "0.1.0"

moved.install()

__all__, __getattr__, __dir__ = registry.lazily(__name__)  # pyright: ignore[reportUnsupportedDunderAll]
