"""Networks of images on disk: in a directory, or at a revision in the Hugging Face hub's cache, filled if need be."""

__all__ = ["CARD", "find_model", "licence_of", "revision_of", "weight_files"]

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from textdiff.errors import UserError
from textdiff.files import stamp
from textdiff.models.downloads.hub import fetch, is_id
from textdiff.models.weights import MissingWeightsError, ResolvedWeights, hashed

CARD = "README.md"
UNKNOWN = "unknown"
_Wanted = Callable[[Collection[str]], Sequence[str]]


def find_model(name: str, of: str, anchor: str, wanted: _Wanted, *, download: bool) -> ResolvedWeights:
    """The files of a model, and one digest of all that determine its features: the weights and the configurations.

    Args:
        name: as it was asked for, ``hub:facebook/dinov2-small@1234567``.
        of: what stands after the colon: a directory, or an id on the hub and, after an ``@``, a revision of it.
        anchor: the file that every such model has at its top.
        wanted: picks the files, of the names of all there are, or refuses them; the file that the weights are in, or
            begin with, comes first.
        download: whether missing files may be fetched.

    Returns:
        The file of the weights, under a name that holds the commit where the model comes from the hub.

    Raises:
        UserError: no such model; it is not in place and cannot be fetched; a file is missing or damaged.
    """
    if not of:
        raise UserError(f"{name} names no model; write a directory or an id on the Hugging Face hub after the colon")
    if Path(of).expanduser().is_dir():
        directory = Path(of).expanduser()
    else:
        repository, _, revision = of.partition("@")
        if not is_id(repository):
            raise UserError(f"{name}: no such directory, and not an id on the hub")
        directory = _snapshot(name, repository, revision or None, anchor, wanted, download)
        name = f"{name.partition(':')[0]}:{repository}@{directory.name}"
    files = [file for file in wanted(_files(directory)) if file != CARD]
    before = stamp(directory / files[0])
    listed = "".join(f"{file} {digest}\n" for file, digest in sorted(_digests(name, directory, files).items()))
    return ResolvedWeights(name, directory / files[0], hashlib.sha256(listed.encode()).hexdigest(), before)


def weight_files(name: str, files: Collection[str], stem: str, where: str = "") -> list[str]:
    """The names of a model's weights as safetensors, of the names of all files there are.

    Args:
        name: as it was asked for.
        files: the names of all files.
        stem: that of a file of weights, ``model``.
        where: the folder, with a slash after it.

    Raises:
        UserError: there are none, or only those that reading could run code for.
    """
    whole, index = f"{where}{stem}.safetensors", f"{where}{stem}.safetensors.index.json"
    if whole in files:
        return [whole]
    shard = re.compile(rf"{re.escape(where + stem)}-\d+-of-(\d+)\.safetensors")
    shards = {file: int(match[1]) for file in sorted(files) if (match := shard.fullmatch(file))}
    if index in files and shards:
        if len(shards) < (count := max(shards.values())):
            raise UserError(f"{name}: there are {len(shards)} of the {count} files of its weights; copy the others")
        return [*shards, index]
    others = sorted(file for file in files if file.startswith(where) and file.endswith((".bin", ".pt", ".pth", ".h5")))
    there = f", only {others[0]}, which is not read; save it with safe_serialization=True" if others else ""
    raise UserError(f"{name}: there is no {whole}{there}")


def licence_of(directory: Path) -> str:
    """The licence that a model's card states in its metadata, or ``unknown``."""
    from huggingface_hub.repocard import metadata_load

    try:
        card = metadata_load(directory / CARD) or {}
    except Exception:  # a card is written by hand; no part of the model depends on it
        return UNKNOWN
    stated = str(card.get("license") or UNKNOWN)
    own = card.get("license_name")
    return f"{stated} ({own})" if stated == "other" and own else stated


def revision_of(name: str) -> str:
    """The revision that a name holds after an ``@``, as ``hub:facebook/dinov2-small@1234567``; a directory has none."""
    of = name.partition(":")[2]
    return "" if Path(of).expanduser().is_dir() else of.partition("@")[2]


def _snapshot(name: str, repository: str, revision: str | None, anchor: str, wanted: _Wanted, download: bool) -> Path:
    """The directory of a revision in the hub's cache, which is asked first and filled where it lacks a file."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, anchor, revision=revision)
    with contextlib.suppress(UserError):  # a download that was stopped leaves a directory that lacks files
        if isinstance(found, str):
            wanted(_files(Path(found).parent))
            return Path(found).parent

    def unreachable(why: str) -> UserError:
        return MissingWeightsError(
            f"{name}: is not in the hub's cache here and cannot be downloaded ({why}); run this once with a "
            f"connection, or copy the model's directory here and give {name.partition(':')[0]}:DIR"
        )

    if not download:
        raise unreachable("it was not to be")
    return fetch(name, repository, wanted, unreachable, revision=revision)


def _files(directory: Path) -> set[str]:
    """The files in a model's directory and in the folders of its parts."""
    found = (*directory.glob("*"), *directory.glob("*/*"))
    return {path.relative_to(directory).as_posix() for path in found if path.is_file()}


def _digests(name: str, directory: Path, files: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of each file; the hub's cache names large files by it, which is checked."""
    found = {}
    for file in files:
        found[file] = hashed(directory / file)
        stored = (directory / file).resolve().name
        if re.fullmatch("[0-9a-f]{64}", stored) and stored != found[file]:
            raise UserError(f"{name}: {directory / file} is damaged; delete it and run the same command again")
    return found
