"""``textdiff download``: weights and data sets by their names, ahead of time."""

__all__ = ["KNOWN", "download"]

from pathlib import Path

from textdiff.errors import UserError, suggest
from textdiff.models.backbones import BACKBONES
from textdiff.models.downloads.hub import locate, snapshot
from textdiff.models.downloads.monuseg_files import download_monuseg
from textdiff.models.weights import CHECKPOINTS, TEXT_ENCODERS, fetch_weights
from textdiff.options.tools import Download
from textdiff.readers.presets import get_preset

DATA_SETS = {"monuseg": download_monuseg}
KNOWN = (*CHECKPOINTS, *TEXT_ENCODERS, *DATA_SETS)


def download(options: Download) -> Path:
    """Fetches a backbone, a text encoder or a data set by its name, unless it is in place, and gives its path.

    Raises:
        UserError: no such name; it cannot be fetched; what came is not what it should be.
    """
    name, to, url = options.name, Path(options.to) if options.to else None, options.url
    if name in CHECKPOINTS:
        return fetch_weights(name, to, url).path
    if name in TEXT_ENCODERS:
        if url is not None:
            raise UserError(f"--url {url}: {name} comes from the hub; name a mirror of it in HF_ENDPOINT")
        return (locate(name) if to is None else None) or snapshot(name, to)
    if name in DATA_SETS:
        return DATA_SETS[name](to or Path("data") / get_preset(name).directory, url)
    if name in BACKBONES:
        raise UserError(f"{name}: nothing to download; extract --backbone {name} takes it as it is")
    raise UserError(f"{name}: nothing of this name{suggest(name, KNOWN)}; known are {', '.join(KNOWN)}")
