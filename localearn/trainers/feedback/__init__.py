from localearn.trainers.feedback.base import FeedbackTrainer
from localearn.trainers.feedback.direct_feedback_alignment import DirectFeedbackAlignment
from localearn.trainers.feedback.pepita import Pepita

__all__ = ["DirectFeedbackAlignment", "FeedbackTrainer", "Pepita"]
