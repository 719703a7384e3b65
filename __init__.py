"""TextDiff: label-efficient segmentation of medical images from a frozen diffusion model and text.

    import textdiff

    cache = textdiff.extract("monuseg", data="data/MoNuSeg")  # stage one, once per data set
    run = textdiff.fit(cache, labels=5)                       # stage two
    print(textdiff.score(run).table)
    predict = textdiff.Predictor(run)
    probabilities = predict("slide.png", "A few round nuclei")  # (classes, H, W)

The functions take the options of the commands of the same names, with the same defaults (see ``textdiff.api``). They
and PyTorch are imported when one of them is first used.
"""

__all__ = [
    "CacheDataset",
    "FeatureCache",
    "Predictor",
    "Run",
    "Scores",
    "UserError",
    "__version__",
    "ablate",
    "combine",
    "compare",
    "curve",
    "extract",
    "fit",
    "open_cache",
    "open_run",
    "panel",
    "predict",
    "pretrain",
    "rank",
    "report",
    "resume",
    "score",
    "sweep",
    "table1",
    "text_check",
]

from typing import TYPE_CHECKING

from textdiff.errors import UserError

if TYPE_CHECKING:
    from textdiff.api import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `import textdiff` must stay light: the command line imports it too, before it knows what is asked of it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from textdiff import api

    value: object = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
