from localearn.trainers.feedback.backward_path import BackwardPathTrainer
from localearn.trainers.feedback.base import FeedbackTrainer
from localearn.trainers.feedback.direct_feedback_alignment import DirectFeedbackAlignment
from localearn.trainers.feedback.feedback_alignment import FeedbackAlignment
from localearn.trainers.feedback.pepita import Pepita
from localearn.trainers.feedback.product_feedback_alignment import ProductFeedbackAlignment
from localearn.trainers.feedback.sign_symmetry import SignSymmetry

__all__ = [
    "BackwardPathTrainer",
    "DirectFeedbackAlignment",
    "FeedbackAlignment",
    "FeedbackTrainer",
    "Pepita",
    "ProductFeedbackAlignment",
    "SignSymmetry",
]
