"""The options of ``extract``."""

__all__ = ["Extract"]

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from textdiff.errors import UserError
from textdiff.options.option import Again, AnyPath, Exists, InStore, Known, Metavar, Range, Usual
from textdiff.options.reading import Place, ReadOptions
from textdiff.options.record import Record
from textdiff.options.shared import Jitter, Natural, Precise, Protocol, Seed, TileSide

SYMMETRIES = 8
FromPreset = Usual("textdiff.readers.presets:usual")
Step = Annotated[int, Range(least=0, most=999)]


@dataclass(frozen=True, kw_only=True)
class Features(Record):
    """Network and text."""

    backbone: Annotated[AnyPath | None, Known("textdiff.models.backbones:BACKBONES"), FromPreset] = None
    """Frozen network: adm-256, nano-he (H&E), nano-cxr (chest X-rays), efficientnet-lite0 (ImageNet's), a checkpoint
    file, hub:ID or sd:ID of the Hugging Face hub or a directory, or none: rgb (the image and blurs of it), filters."""
    text_encoder: Annotated[AnyPath | None, Known("textdiff.models.weights:KNOWN_ENCODERS"), FromPreset] = None
    """Text encoder: clinical-biobert, minilm, none, a hub id or a directory."""
    blocks: Annotated[Sequence[Natural] | Literal["all"] | None, FromPreset] = None
    """Decoder blocks to keep, ascending, numbered as in the network's output_blocks."""
    steps: Annotated[Sequence[Step] | None, FromPreset] = None
    """Diffusion steps at which the image is noised, each in 0..999."""
    image_size: Annotated[int | None, Range(least=32), FromPreset] = None
    """Height and width in pixels that images are resized to; a multiple of 32 for most backbones."""
    enlarge: Annotated[int | None, Range(least=1, most=8), FromPreset] = None
    """Times that each image is enlarged for the network: its activations are finer then, and it takes longer."""
    protocol: Protocol = "clean"
    """Protocol: clean, or paper, which does as the paper's code does."""
    dtype: Literal["float16", "float32", "int8"] = "float16"
    """Precision in which activations are stored; int8, with a scale for each channel, takes half of float16's room."""

    def check(self) -> None:
        """Refuses blocks out of order."""
        super().check()
        blocks = () if self.blocks == "all" else tuple(self.blocks or ())
        if list(blocks) != sorted(blocks):
            raise UserError(f"--blocks {','.join(map(str, blocks))}: give them in ascending order")


@dataclass(frozen=True, kw_only=True)
class Cutting(Record):
    """Tiles and views."""

    tile: TileSide | None = None
    """Side in pixels of the tiles that images are cut into; images are not cut by default."""
    overlap: Natural | None = None
    """Pixels that neighbouring tiles share; an eighth of --tile by default."""
    views: Annotated[int | None, FromPreset] = None
    """Views of each training image: 1, or 8 for the symmetries; with --jitter 16, 24 ... too."""
    test_views: int | None = None
    """Views of each validation and test image: 1, or 8, of which score then takes the mean; 1 by default."""
    turn_texts: bool | None = None
    """Turn the direction words of a text along with each view; so it is by default but with --protocol paper."""
    direction_words: Annotated[AnyPath | None, Exists("table of direction words")] = None
    """Direction words of your own beside those known, a TOML file as docs/texts.md shows; none by default."""
    jitter: Annotated[Jitter | None, FromPreset] = None
    """Colours that are varied in all views of a training image but the first: stain (he), exposure (cxr)."""

    def check(self) -> None:
        """Refuses tiles and views that cannot be."""
        super().check()
        if self.overlap is not None and self.tile is None:
            raise UserError(f"--overlap {self.overlap}: goes with --tile, as in --tile 256 --overlap 32")
        if self.overlap is not None and self.tile is not None and self.overlap > self.tile // 2:
            raise UserError(f"--overlap {self.overlap}: must be at most {self.tile // 2}, half of --tile {self.tile}")
        views, colours = self.views, self.jitter not in (None, "none")
        if views is not None and views != 1 and (views < SYMMETRIES or views % SYMMETRIES):
            raise UserError(f"--views {views}: must be 1, 8 (the symmetries), or with --jitter a multiple of 8")
        if self.test_views not in (None, 1, SYMMETRIES):
            raise UserError(f"--test-views {self.test_views}: must be 1, or 8 (the symmetries)")
        if views is not None and views > SYMMETRIES and not colours:
            raise UserError(f"--views {views}: there are eight symmetries; --jitter he makes more views of an image")
        if views == 1 and colours:
            raise UserError(
                f"--jitter {self.jitter} varies the views of an image but the first; give --views 8 or more"
            )


@dataclass(frozen=True, kw_only=True)
class Filling(Precise):
    """Running."""

    shard: Annotated[tuple[int, int] | Literal["slurm"], Metavar("I/N")] = (0, 1)
    """Part of the rows: every n-th from the i-th, so that n processes can share one cache; slurm: an array task's."""
    devices: Annotated[Sequence[str] | None, Metavar("0,1,..."), Again()] = None
    """Devices to share the rows between, a process each: GPUs by number, or names; by default only --device."""
    scheduler: Annotated[str | None, Metavar("ADDRESS|local[:N]")] = None
    """Dask scheduler whose workers do the rows, as tcp://host:8786; local starts N or one a core; none by default."""
    batch: Annotated[int | None, Range(least=1)] = None
    """Images that go through the network at once; by default 1 on a CPU, on a GPU what half a gigabyte of rows is."""
    overwrite: bool = False
    """Replace a cache that is there."""
    update: bool = False
    """Keep the rows that still hold where the data set has changed, and make the others, as the cache was made."""
    skip_bad: bool = False
    """Leave out bad images instead of stopping."""
    durable: bool = False
    """Have each row on the disk before the next one counts as done, so that finished rows outlast a loss of power."""
    dry_run: bool = False
    """Stop after the plan."""

    def check(self) -> None:
        """Refuses a part that is none, and two ways to treat the cache that is there."""
        super().check()
        if self.shard != "slurm" and not 0 <= self.shard[0] < self.shard[1]:
            raise UserError(f"--shard {self.shard[0]}/{self.shard[1]}: must be I/N with 0 <= I < N, as in 0/2 and 1/2")
        if self.overwrite and self.update:
            raise UserError("--overwrite makes all rows anew, --update keeps those that still hold; give one of them")
        if self.devices and self.scheduler:
            raise UserError("--devices starts workers here, --scheduler finds them elsewhere; give one of them")
        if self.devices and self.device != "auto":
            raise UserError(f"--device {self.device}: --devices says where to compute; give one of them")


@dataclass(frozen=True, kw_only=True)
class Extract(Place, Features, Cutting, ReadOptions, Filling):
    """Run the frozen network once per image and cache its activations.

    Stage one. The same command continues where it was stopped, and so does --cache alone, which takes all other options
    from the cache.
    """

    dataset: Annotated[str | None, Known("textdiff.readers:READERS", strict=True)] = field(default=None, kw_only=False)
    """Name of the data set, or folder or hdf5 for your own; that of --cache by default."""
    preset: Literal["paper", "nano", "rgb", "filters", "imagenet"] = "paper"
    """Defaults: the paper's; nano, which suit the backbone in the package; rgb and filters, without a network; or
    imagenet, for efficientnet-lite0."""
    cache: Annotated[AnyPath | None, InStore()] = None
    """Cache to make, a directory or an address (s3://bucket/x.zarr); by default cache/NAME.zarr, where NAME is the
    data set, or that of --data for your own."""
    seed: Seed = 0
    """Seed of the noise that all images share, and of splits that are drawn."""

    def check(self) -> None:
        """Refuses to extract from nothing."""
        super().check()
        if self.dataset is None and self.cache is None:
            raise UserError("--dataset: is missing; name the data set, or with --cache a cache to go on with")
