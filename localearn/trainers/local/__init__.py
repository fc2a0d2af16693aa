from typing import TYPE_CHECKING

from localearn import registry

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.trainers.local.base import LocalTrainer as LocalTrainer
    from localearn.trainers.local.cafo import CaFo as CaFo
    from localearn.trainers.local.forward_forward import ForwardForward as ForwardForward
    from localearn.trainers.local.forward_gnn import ForwardGNN as ForwardGNN
    from localearn.trainers.local.local_loss import LocalLoss as LocalLoss
    from localearn.trainers.local.model_free import ModelFree as ModelFree
    from localearn.trainers.local.mono_forward import MonoForward as MonoForward
    from localearn.trainers.local.noprop import NoProp as NoProp
    from localearn.trainers.local.scalable_forward_forward import ScalableForwardForward as ScalableForwardForward

__all__, __getattr__, __dir__ = registry.lazily(__name__)  # pyright: ignore[reportUnsupportedDunderAll]
