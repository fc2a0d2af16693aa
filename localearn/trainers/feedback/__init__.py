from localearn.trainers.feedback.base import FeedbackTrainer
from localearn.trainers.feedback.direct_feedback_alignment import DirectFeedbackAlignment

__all__ = ["DirectFeedbackAlignment", "FeedbackTrainer"]
