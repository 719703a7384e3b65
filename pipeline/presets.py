"""What a data set's experiments share: which activations, at which steps, from which models."""

__all__ = ["PRESETS", "Preset"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Defaults of one data set. Every field can be overridden on the command line.

    Blocks and steps of ``monuseg`` and ``qata`` are those of the TextDiff paper (Feng, MICCAI 2024, section 3.1).
    """

    dataset: str
    blocks: tuple[int, ...]
    steps: tuple[int, ...] = (50, 150, 250)
    image_size: int = 256
    backbone: str = "adm-256"
    text_encoder: str = "clinical-biobert"


PRESETS = {
    preset.dataset: preset
    for preset in (
        Preset("monuseg", blocks=(6, 8, 12, 16)),
        Preset("qata", blocks=(4, 6, 8, 12)),
        # Not in the paper; CT slices of the same disease, with the same kind of sentences, as QaTa-COV19's radiographs.
        Preset("mosmed", blocks=(4, 6, 8, 12)),
        # A lab's own data, of which nothing is known.
        Preset("folder", blocks=(6, 8, 12, 16)),
        Preset("hdf5", blocks=(6, 8, 12, 16)),
        # Synthetic, and made on the spot: nothing has to be downloaded for it.
        Preset("phantom", blocks=(6, 8, 12, 16), image_size=128, backbone="nano-he", text_encoder="minilm"),
    )
}
