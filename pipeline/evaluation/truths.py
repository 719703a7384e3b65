"""What a prediction is compared with, and the scores of one image under each."""

__all__ = ["PRIMARY", "TRUTHS", "truth_scores"]

from collections.abc import Sequence

from textdiff.pipeline.evaluation.class_scores import Scores, class_scores, scores_of_counts
from textdiff.pipeline.prediction.whole import Whole

TRUTHS = {
    "clean": "mask by area",
    "paper": "paper's mask",
    "original": "original size",
}
"""What a prediction is compared with: DESIGN, section 4."""
PRIMARY = {False: "clean", True: "original"}
"""The truth that comes first and that cases are chosen by, without and with tiles."""


def truth_scores(whole: Whole, classes: Sequence[str]) -> Scores:
    """``class_scores`` of an image under each of ``TRUTHS``."""
    predicted = whole.probability.argmax(0)
    return {
        **class_scores(predicted, whole.clean, classes, "clean"),
        **class_scores(predicted, whole.paper, classes, "paper"),
        **scores_of_counts(whole.counts, classes, "original"),
    }
