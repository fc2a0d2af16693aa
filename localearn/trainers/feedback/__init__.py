from typing import TYPE_CHECKING

from localearn import registry

if TYPE_CHECKING:  # written by docs/tools/site_rules.py
    from localearn.trainers.feedback.alignment import FeedbackAlignment as FeedbackAlignment
    from localearn.trainers.feedback.alignment import SignSymmetry as SignSymmetry
    from localearn.trainers.feedback.backward_path import BackwardPathTrainer as BackwardPathTrainer
    from localearn.trainers.feedback.base import FeedbackTrainer as FeedbackTrainer
    from localearn.trainers.feedback.direct_feedback_alignment import DirectFeedbackAlignment as DirectFeedbackAlignment
    from localearn.trainers.feedback.pepita import Pepita as Pepita
    from localearn.trainers.feedback.product_feedback_alignment import (
        ProductFeedbackAlignment as ProductFeedbackAlignment,
    )

__all__, __getattr__, __dir__ = registry.lazily(__name__)  # pyright: ignore[reportUnsupportedDunderAll]
