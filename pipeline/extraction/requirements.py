"""What stage one needs before it looks at an image: the data set, the backbone's weights, the text encoder."""

__all__ = ["require_data", "require_models"]

import shlex
from collections.abc import Sequence
from pathlib import Path

from textdiff.errors import UserError
from textdiff.models.backbones.load import resolve_backbone
from textdiff.models.downloads.hub import locate, snapshot
from textdiff.models.weights import MissingWeightsError, ResolvedWeights
from textdiff.readers.locations import find_data


def require_data(dataset: str, backbone: str, text_encoder: str) -> Path:
    """The data set's directory in one of its usual places.

    Raises:
        UserError: it is in none of them. Models that are missing too are named with it, and nothing is downloaded.
    """
    try:
        return find_data(dataset)
    except UserError as error:
        _, models = _models(backbone, text_encoder, download=False)
        raise _refusal([str(error)], models, dataset, "DIR") from None


def require_models(dataset: str, data: Path, backbone: str, text_encoder: str) -> ResolvedWeights:
    """The backbone's weights; they and the text encoder are downloaded where they are not in place.

    Raises:
        UserError: the weights or the text encoder are missing; both are named at once.
    """
    found, missing = _models(backbone, text_encoder, download=True)
    if missing or found is None:
        raise _refusal([], missing, dataset, shlex.quote(str(data)))
    return found


def _models(backbone: str, text_encoder: str, download: bool) -> tuple[ResolvedWeights | None, list[str]]:
    """The backbone's weights, hashed once, and what is missing, in words."""
    found, missing = None, []
    try:
        found = resolve_backbone(backbone, download=download)
    except MissingWeightsError as error:  # others, of what is misspelt or misplaced, no download mends
        missing.append(str(error))
    try:
        if text_encoder != "none" and locate(text_encoder) is None:
            if download and not missing:
                snapshot(text_encoder)
            else:
                missing.append(f"{text_encoder}: the text encoder is not in place; textdiff download {text_encoder}")
    except UserError as error:
        missing.append(str(error))
    return found, missing


def _refusal(data: Sequence[str], models: Sequence[str], dataset: str, place: str) -> UserError:
    missing = [*data, *models]
    said = missing[0]
    if len(missing) > 1:
        said = f"{len(missing)} things are missing: " + "; ".join(f"({i}) {what}" for i, what in enumerate(missing, 1))
    if models:
        encoder = "" if locate("minilm") else " --text-encoder none"
        command = f"textdiff extract --dataset {dataset} --data {place} --preset nano{encoder}"
        said += f". What works here and now, without a download: `{command}`"
    return UserError(said)
