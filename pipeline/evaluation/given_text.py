"""One text for all images in place of their own, to measure what a missing or a fixed text costs."""

__all__ = ["GivenText", "difference_table", "paired_differences"]

import hashlib
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from textdiff import console
from textdiff.cache import FeatureCache, Item
from textdiff.images.directions import directions_of
from textdiff.images.images import SYMMETRIES
from textdiff.metrics.intervals import Interval
from textdiff.pipeline.evaluation.class_scores import mean_of_some
from textdiff.pipeline.evaluation.object_scores import metrics_table
from textdiff.pipeline.evaluation.score_tables import ScoreRow, score_table
from textdiff.pipeline.prediction.preprocessing import TextEmbedder
from textdiff.pipeline.runs import Run

_SLUG = 24


@dataclass(frozen=True)
class GivenText:
    """A text, and its embedding by the run's own encoder."""

    text: str
    views: Sequence[tuple[torch.Tensor, torch.Tensor]]
    """Tokens (1, L, D) float32 and their mask (1, L) bool, of the text as it is true of each of the eight views; of one
    only where a run's texts do not turn."""

    @classmethod
    def embed(cls, run: Run, text: str, device: torch.device) -> "GivenText":
        """Embeds ``text``, which may be empty, for ``run``.

        Raises:
            UserError: the run reads no text, or its text encoder is missing or is another one.
        """
        embed, words = TextEmbedder(run, device), directions_of(run.config["about"])
        return cls(text, [embed(words.turned(text, view)) for view in range(SYMMETRIES)] if words else [embed(text)])

    def shown(self, cache: FeatureCache, items: Iterable[Item]) -> Iterator[Item]:
        """Items of rows of a cache with this text in place of their own."""
        for item in items:
            tokens, mask = self.views[cache.rows[item.row].view % len(self.views)]
            yield replace(item, tokens=tokens, token_mask=mask, sentence=self.text)

    @property
    def count(self) -> int:
        """Tokens that the network reads, special ones included."""
        return int(self.views[0][1].sum())

    @property
    def suffix(self) -> str:
        """Goes into names of files: ``-text-empty``, or the text's first words and eight digits of its SHA-256."""
        if not self.text:
            return "-text-empty"
        words = re.sub(r"[^a-z0-9]+", "-", self.text.lower()).strip("-")[:_SLUG].strip("-")
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:8]
        return "-".join(part for part in ("-text", words, digest) if part)

    @property
    def line(self) -> str:
        """What the images were given, for people; at most 80 columns wide."""
        what = f'"{" ".join(self.text.split())}"' if self.text else "no text, the empty string"
        return textwrap.fill(f"Given to every image: {what} ({console.counted(self.count, 'token')})", 80)


def paired_differences(
    records: Sequence[Mapping[str, Any]],
    own: Sequence[Mapping[str, Any]],
    truths: Iterable[str],
    metrics: Iterable[str],
    seed: int,
) -> dict[str, dict[str, Interval]] | None:
    """Mean of each score minus the same image's score in ``own``, with a bootstrap interval over the images.

    Args:
        records: for every image its ``id`` and scores, called ``<metric>_<truth>``.
        own: the same of another scoring, in any order.
        truths: what predictions were compared with.
        metrics: the scores that are wanted; those that either side lacks are left out, for an image or altogether.
        seed: of the bootstrap.

    Returns:
        By truth and metric; None, and a warning, where the images are not the same ones.
    """
    before = {image["id"]: image for image in own}
    if {record["id"] for record in records} != set(before):
        console.warn("the run's own scores are of other images: score again without --text to see the difference")
        return None

    def mean(column: str) -> Interval | None:
        by_image = []
        for record in records:
            now, then = record.get(column), before[record["id"]].get(column)
            by_image.append({**record, column: None if now is None or then is None else now - then})
        return mean_of_some(by_image, column, seed)

    return {
        truth: {metric: found for metric in metrics if (found := mean(f"{metric}_{truth}")) is not None}
        for truth in truths
    }


def difference_table(
    differences: Mapping[str, Mapping[str, Interval]], names: Mapping[str, str], *, markdown: bool = False
) -> str:
    """What ``paired_differences`` found, as lines.

    Args:
        differences: by truth and metric.
        names: what each truth is called, in the order in which they are shown.
        markdown: a GitHub table; otherwise aligned text.
    """
    rows = [ScoreRow(names[truth], differences[truth]["dice"], differences[truth]["iou"]) for truth in names]
    further = {name: value for name, value in differences["original"].items() if name not in ("dice", "iou")}
    parts = (
        "Difference to this run's own scores, image by image:",
        score_table(rows, markdown=markdown),
        metrics_table(further, "These differences are at the original size, too.", markdown=markdown),
    )
    return "\n\n".join(part for part in parts if part)
