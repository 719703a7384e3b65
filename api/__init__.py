"""The Python API: the commands as functions, with the same options and defaults.

    import textdiff

    cache = textdiff.extract("folder", data="slides", backbone="nano-he", text_encoder="none")
    run = textdiff.fit(cache, variant="no-text", epochs=30)
    scores = textdiff.score(run)
    scores.summary["scores"]["clean"]["dice"].mean
    probabilities = textdiff.Predictor(run)(image)  # image (H, W, 3) uint8 or a file -> (classes, H, W) float32

Wherever a run is asked for, a ``Run``, its directory, or ``None`` for the latest one in ``runs`` will do; a cache is a
``FeatureCache`` or its path. What a user can put right is raised as ``textdiff.UserError``, with the text that the
command line would print. Import from ``textdiff``, not from here.
"""

__all__ = [
    "FeatureCache",
    "Predictor",
    "Run",
    "Scores",
    "extract",
    "fit",
    "open_cache",
    "open_run",
    "predict",
    "report",
    "resume",
    "score",
]

from textdiff.api.extraction import extract
from textdiff.api.fitting import fit, resume
from textdiff.api.opening import open_cache, open_run
from textdiff.api.prediction import Predictor, predict
from textdiff.api.scoring import report, score
from textdiff.cache import FeatureCache
from textdiff.pipeline.runs import Run
from textdiff.pipeline.score import Scores
