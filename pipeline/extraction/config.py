"""The options of ``extract`` with what the user left out filled in, and what they need before an image is looked at."""

__all__ = ["ExtractConfig", "array_shard", "check_fit", "require_models", "resolve", "say_shard", "tiling"]

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

from textdiff import console
from textdiff.cache import CacheError, FeatureCache
from textdiff.cache.stores import store_at
from textdiff.errors import UserError, quoted
from textdiff.models.backbones import BACKBONES
from textdiff.models.backbones.base import Backbone
from textdiff.models.backbones.load import backbone_kind, moved, resolve_backbone, usual_steps
from textdiff.models.downloads.hub import locate, snapshot
from textdiff.models.weights import KNOWN_ENCODERS, MissingWeightsError, ResolvedWeights
from textdiff.options.extract import Cutting, Extract, Features
from textdiff.options.option import InStore
from textdiff.options.reading import Place, ReadOptions
from textdiff.options.shared import Jitter
from textdiff.places import Location, located
from textdiff.readers.presets import PRESET_KINDS, find_data, get_preset

_OF_THE_CACHE = (Place, Features, Cutting, ReadOptions)
"""The options that say what a cache holds; the others say how it is filled."""
_PLACES = ("data", "annotations", "backbone", "text_encoder", "direction_words")
_MARK = "./"
"""What a path relative to the cache begins with, in what the cache says of itself."""
_ID = "SLURM_ARRAY_TASK_ID"


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(Extract):
    """What to extract, from what, to where: what has a default in the preset is settled here."""

    dataset: str
    data: Path
    cache: Annotated[Location, InStore()]
    backbone: str
    text_encoder: str
    blocks: tuple[int, ...] | None
    """None for all of them."""
    steps: tuple[int, ...]
    image_size: int = 256
    enlarge: int = 1
    views: int = 1
    test_views: int = 1
    jitter: Jitter | None = None
    """None where colours are not varied."""
    shard: tuple[int, int] = (0, 1)
    given: Mapping[str, Any]
    """The options that say what the cache holds, JSON-able, where they are not the defaults."""


def resolve(options: Extract) -> ExtractConfig:
    """The options with the data set's preset and its usual places where they say nothing.

    With ``update``, and where no data set is named, the options that made the cache come before these.

    Raises:
        UserError: the data set is in none of its usual places, no cache is there whose options could be taken, or the
            options contradict the preset's.
    """
    if isinstance(options, ExtractConfig):
        return options
    cache = _place(options)
    if options.dataset is None or (options.update and store_at(cache).occupied()):
        try:
            made = FeatureCache.open(cache).about["options"] | _given(options, cache)
            places = {name: _from_cache(made[name], cache) for name in _PLACES if name in made}
            options = replace(options, **made | places)
        except CacheError:
            if options.dataset is None:
                raise
            # These options may be all that is needed to repair it.
    assert options.dataset is not None
    usual = get_preset(options.dataset, options.preset)
    views = options.views or usual.views
    jitter = options.jitter or (usual.jitter if views > 1 else None)
    backbone = str(options.backbone or usual.backbone)
    text_encoder = str(options.text_encoder or usual.text_encoder)
    kind = backbone_kind(backbone)
    follows = kind.follows_presets or "blocks" in PRESET_KINDS[options.preset]
    data = Path(options.data) if options.data else _require_data(options.dataset, backbone, text_encoder)
    return options.part(
        ExtractConfig,
        data=data,
        cache=cache,
        backbone=backbone,
        text_encoder=text_encoder,
        blocks=None if options.blocks == "all" else options.blocks or (usual.blocks if follows else None),
        steps=_steps(options.steps, usual_steps(backbone) or usual.steps, kind, backbone),
        image_size=options.image_size or usual.image_size,
        enlarge=options.enlarge or usual.enlarge,
        views=views,
        test_views=options.test_views or 1,
        jitter=None if jitter == "none" else jitter,
        shard=array_shard(os.environ) if options.shard == "slurm" else options.shard,
        given=_given(options, cache),
    )


def _place(options: Extract) -> Location:
    """The cache that is meant: called after the data set, or after a lab's own file or directory."""
    if options.cache is not None:
        return located(options.cache)
    assert options.dataset is not None
    usual = get_preset(options.dataset, options.preset)
    if not usual.own:
        return Path("cache") / f"{options.dataset}.zarr"
    encoder = str(options.text_encoder or usual.text_encoder)
    data = options.data or _require_data(options.dataset, str(options.backbone or usual.backbone), encoder)
    place = Path(data).resolve()
    return Path("cache") / f"{place.stem if place.is_file() else place.name}.zarr"


def _given(options: Extract, cache: Location) -> dict[str, Any]:
    """The options that say what a cache holds, where they are not the defaults, as JSON has them.

    Paths are relative to the cache, so that it is gone on with from any directory and moves with its data; those of a
    cache in an object store are absolute.
    """
    names = {"dataset", "preset", *(field.name for record in _OF_THE_CACHE for field in fields(record))}
    defaults = {field.name: field.default for field in fields(Extract) if field.name in names}
    values = {name: getattr(options, name) for name, default in defaults.items() if getattr(options, name) != default}

    def place(path: Path) -> str:
        found = path.resolve()
        return _MARK + os.path.relpath(found, cache.resolve().parent) if isinstance(cache, Path) else str(found)

    for name in _PLACES:
        if name in values and not (name == "text_encoder" and str(values[name]) in KNOWN_ENCODERS):
            values[name] = moved(str(values[name]), place)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _from_cache(value: str, cache: Location) -> str:
    """What ``_given`` says of a place, as a path; a name of a network or an encoder stays what it is."""
    before, mark, place = value.partition(_MARK)
    known = mark and before in ("", *BACKBONES)
    return before + os.path.normpath(cache.resolve().parent / place) if known else value


def tiling(config: ExtractConfig) -> dict[str, Any]:
    """What the fingerprint says about tiles and their resolution: nothing where there are none."""
    if config.tile is None:
        return {}
    tiles = {"tile": config.tile, "overlap": config.tile // 8 if config.overlap is None else config.overlap}
    return tiles if config.mpp is None else tiles | {"mpp": config.mpp}


def check_fit(config: ExtractConfig, backbone: Backbone) -> None:
    """Refuses what the backbone cannot do.

    Raises:
        UserError: it has no such level, or takes no images of this size.
    """
    levels = list(backbone.levels(config.image_size))
    if wrong := [block for block in config.blocks or () if block not in levels]:
        known = f"{levels[0]}..{levels[-1]}" if levels == [*range(levels[0], levels[-1] + 1)] else str(levels)[1:-1]
        raise UserError(f"--blocks {wrong[0]}: the backbone {config.backbone} has decoder blocks {known}")
    if config.image_size % backbone.multiple:
        raise UserError(
            f"--image-size {config.image_size}: must be a multiple of {backbone.multiple} for the backbone "
            f"{config.backbone}"
        )


def _steps(given: Sequence[int] | None, usual: tuple[int, ...], kind: type[Backbone], backbone: str) -> tuple[int, ...]:
    """The diffusion steps; of a backbone that knows none the one under which its activations are stored."""
    if kind.steps is None:
        if given and tuple(given) != (0,):
            raise UserError(
                f"--steps {','.join(map(str, given))}: the backbone {backbone} knows no diffusion steps; leave them out"
            )
        return (0,)
    steps = tuple(given or usual)
    if wrong := [step for step in steps if step not in kind.steps]:
        raise UserError(f"--steps {wrong[0]}: the backbone {backbone} has the steps {kind.steps[0]}..{kind.steps[-1]}")
    return steps


def array_shard(environment: Mapping[str, str]) -> tuple[int, int]:
    """The part (i, n) of the task that this process is of: ``--array=0-7``, ``1-8`` and ``0-14:2`` have eight each.

    Args:
        environment: of the process, in which SLURM tells a task which one it is.

    Raises:
        UserError: it is of no array, or of one that is no range.
    """
    if _ID not in environment:
        raise UserError(
            f"--shard slurm: {_ID} is not set, so this is no task of a job array; submit with `sbatch --array=0-7`, or "
            "give --shard I/N"
        )
    try:
        own = int(environment[_ID])
        usual = {"COUNT": 1, "MIN": own, "STEP": 1}
        count, first, step = (int(environment.get(f"SLURM_ARRAY_TASK_{name}", usual[name])) for name in usual)
        index, rest = divmod(own - first, step)
    except (ValueError, ZeroDivisionError):
        raise UserError(
            "--shard slurm: SLURM_ARRAY_TASK_ID and those beside it are no numbers; give --shard I/N"
        ) from None
    if rest or not 0 <= index < count:
        raise UserError(
            f"--shard slurm: task {own} is of an array of {count} that is no range; submit a range, as --array=0-7. "
            "Rows that are there are not made again"
        )
    return index, count


def say_shard(shard: tuple[int, int], asked: object, environment: Mapping[str, str]) -> None:
    """Says which part is done, if it is not all; and of an array whose tasks would all do the same, what shares it.

    Args:
        shard: the part (i, n).
        asked: the value of ``--shard``.
        environment: of the process.
    """
    if asked == "slurm":
        console.info(f"shard {shard[0]}/{shard[1]}: task {environment[_ID]} of the job array")
    elif shard == (0, 1) and (count := environment.get("SLURM_ARRAY_TASK_COUNT", "1")) != "1":
        console.info(f"one of {count} tasks of a job array, which does all rows; with --shard slurm they share them")


def _require_data(dataset: str, backbone: str, text_encoder: str) -> Path:
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
        raise _refusal([], missing, dataset, data)
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


def _refusal(data: Sequence[str], models: Sequence[str], dataset: str, place: str | Path) -> UserError:
    missing = [*data, *models]
    said = missing[0]
    if len(missing) > 1:
        said = f"{len(missing)} things are missing: " + "; ".join(f"({i}) {what}" for i, what in enumerate(missing, 1))
    if models:
        encoder = "" if locate("minilm") else " --text-encoder none"
        command = f"textdiff extract --dataset {dataset} --data {quoted(place)} --preset nano{encoder}"
        said += f". What works here and now, without a download: `{command}`"
    return UserError(said)
