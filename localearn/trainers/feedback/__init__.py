from localearn.trainers.feedback.alignment import FeedbackAlignment, SignSymmetry
from localearn.trainers.feedback.backward_path import BackwardPathTrainer
from localearn.trainers.feedback.base import FeedbackTrainer
from localearn.trainers.feedback.direct_feedback_alignment import DirectFeedbackAlignment
from localearn.trainers.feedback.pepita import Pepita
from localearn.trainers.feedback.product_feedback_alignment import ProductFeedbackAlignment

__all__ = [
    "BackwardPathTrainer",
    "DirectFeedbackAlignment",
    "FeedbackAlignment",
    "FeedbackTrainer",
    "Pepita",
    "ProductFeedbackAlignment",
    "SignSymmetry",
]
