"""The sample table of a cache: which rows a data set makes, and what its masks hold."""

__all__ = ["mask_kind", "read_samples", "sample_table", "turning"]

from collections.abc import Mapping, Sequence
from typing import Any

from textdiff import console
from textdiff.cache import Row
from textdiff.errors import UserError
from textdiff.images.directions import Directions, read_directions
from textdiff.images.images import SYMMETRIES
from textdiff.images.labels import UNSAID
from textdiff.images.scaled import Scaled
from textdiff.images.tiles import Grid
from textdiff.options.protocol import PROTOCOLS
from textdiff.pipeline.extraction.config import ExtractConfig
from textdiff.readers import datasets
from textdiff.readers.datasets import Inspected
from textdiff.readers.slides import slide_places


def read_samples(config: ExtractConfig) -> list[Inspected]:
    """Reads and checks the whole data set before any work is done on it.

    Raises:
        UserError: it is not there, or has errors; the images that have them are left out if so asked for.
    """
    samples, problems = datasets.read_dataset(config.dataset, config.data, config)
    inspected, found = datasets.inspect(samples, tiled=config.tile is not None)
    problems += found
    if config.skip_bad:
        bad = [problem for problem in problems if problem.severity == "error"]
        for problem in bad:
            console.warn(f"left out: {problem}")
        problems = [problem for problem in problems if problem.severity != "error"]
        inspected = [fact for fact in inspected if fact.usable]
    datasets.report(problems)
    if not inspected:
        raise UserError(f"{config.data}: no usable image is left")
    return inspected


def turning(config: ExtractConfig) -> Directions | None:
    """The table of words by which texts turn with the views of their images; None where they stay as they are."""
    turn = PROTOCOLS[config.protocol].turn_texts if config.turn_texts is None else config.turn_texts
    return read_directions(config.direction_words) if turn else None


def sample_table(
    inspected: Sequence[Inspected],
    views: int,
    test_views: int,
    tiling: Mapping[str, Any],
    tissue: float = 0,
    annotated_only: bool = False,
    words: Directions | None = None,
) -> tuple[list[Row], list[str]]:
    """The sample table, one row per (sample, tile, view), and the distinct texts in the order of their first use.

    An image without a mask has one view: nothing is trained on it, and there is no score for more views to be of.

    Args:
        inspected: of every sample.
        views: of each annotated training image.
        test_views: of each other image that is annotated.
        tiling: see ``config.tiling``.
        tissue: the share of a slide's tile that must be tissue.
        annotated_only: of slides with a mask, leave out tiles without foreground.
        words: by which the texts of turned views turn; None leaves them.

    Raises:
        BadImageError: no tile of a slide is left.
    """
    tile = tiling.get("tile", 0)
    index: dict[str, int] = {}
    rows = []
    for fact in inspected:
        sample = fact.sample
        own = 1 if fact.mask is None else views if sample.split == "train" else test_views
        texts = [words.turned(sample.text, view) if words else sample.text for view in range(min(own, SYMMETRIES))]
        numbers = [index.setdefault(text, len(index)) for text in texts]
        places = [(0, 0)]
        if tile:
            grid = Grid(fact.image.height, fact.image.width, tile, tiling["overlap"])
            on_slide = isinstance(sample.image, Scaled)
            places = slide_places(fact, grid, tissue, annotated_only) if on_slide else grid.places
        rows += [
            Row(
                id=sample.id,
                split=sample.split,
                view=view,
                text=numbers[view % SYMMETRIES],
                source=sample.image.name,
                image_sha256=fact.image.sha256,
                mask_sha256=fact.mask.sha256 if fact.mask else None,
                height=fact.image.height,
                width=fact.image.width,
                tile=tile,
                y=y,
                x=x,
                group=sample.group,
            )
            for y, x in places
            for view in range(own)
        ]
    return rows, list(index)


def mask_kind(inspected: Sequence[Inspected]) -> dict[str, Any]:
    """What the fingerprint says about masks that hold more than foreground, or less; nothing where they do not.

    ``unlabelled`` is the number that says nothing in the files, where outlines say nothing of what they hold
    ``UNSAID``; in a cache it is always that.
    """
    sample = inspected[0].sample
    number = UNSAID if sample.unlabelled is None and any(fact.sparse for fact in inspected) else sample.unlabelled
    found: dict[str, Any] = {} if number is None else {"unlabelled": number}
    if sample.classes:
        found["classes"] = list(sample.classes)
    elif sample.instances:
        most = max((fact.mask.objects for fact in inspected if fact.mask), default=0)
        found["instances"] = "uint16" if most < 2**16 else "uint32"
    return found
