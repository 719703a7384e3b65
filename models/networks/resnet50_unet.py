"""A U-Net on a ResNet-50: what the paper's Table 1 calls "GLoRIA"."""

__all__ = ["ResNet50UNet"]

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from textdiff.errors import UserError
from textdiff.models.arguments import arguments
from textdiff.models.backbones.checkpoints import read_state
from textdiff.models.networks.decoder_block import DecoderBlock
from textdiff.models.networks.reference_names import copy_reference

_AVERAGES = ("running_mean", "running_var", "num_batches_tracked")


class ResNet50UNet(nn.Module):
    """The segmentation network of GLoRIA (ICCV 2021, https://github.com/marshuang80/gloria); it reads no text.

    GLoRIA's contrastive training on images and reports is one way to get the encoder's weights (``load_pretrained``).
    The segmentation network is the U-Net of segmentation_models.pytorch: an encoder of He et al. (CVPR 2016,
    https://arxiv.org/abs/1512.03385) with the stride in the 3x3 convolution, as torchvision has it, and five decoder
    blocks with nearest upsampling. 32,521,105 parameters for one class, background apart. Module names are theirs.

    Args:
        classes: classes, background included. Two share one logit, the foreground's.
        width: channels of the stem; the four layers have 4, 8, 16 and 32 times as many.
        layers: residual units of each layer.
        decoder: channels of the decoder's blocks.
    """

    def __init__(
        self,
        classes: int = 2,
        width: int = 64,
        layers: Sequence[int] = (3, 4, 6, 3),
        decoder: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        super().__init__()
        self.config = arguments(locals())
        self.encoder = _Encoder(width, layers)
        self.decoder = _Decoder(self.encoder.channels[::-1], decoder)
        head = nn.Conv2d(decoder[-1], 1 if classes == 2 else classes, 3, padding=1)
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.segmentation_head = nn.Sequential(head)

    def scores(self, x: Tensor) -> Tensor:
        """Scores before the sigmoid or softmax: (B, 3, H, W) float -> (B, 1, H, W), or one channel per class above two.

        Raises:
            ValueError: H or W is no multiple of 32.
        """
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % 32 or x.shape[3] % 32:
            raise ValueError(f"images are {tuple(x.shape)}; use (B, 3, H, W) with sides that are multiples of 32")
        scores: Tensor = self.segmentation_head(self.decoder(self.encoder(x)))
        return scores

    def load_reference(self, state: Mapping[str, Tensor]) -> None:
        """Loads a state dict of segmentation_models.pytorch's network.

        Raises:
            UserError: entries are missing, unknown or of another shape; nothing has changed then.
        """
        fix = "use the classes and sizes that they were trained with"
        copy_reference(state, self.state_dict(), "ResNet-50 U-Net", fix)

    def load_pretrained(self, path: Path) -> None:
        """Loads the encoder from a ResNet-50's state dict in torchvision's layout, ``.pth`` or ``.safetensors``.

        Its classifier (``fc``) is left out, and so are its running averages where normalisations keep none (``norms``).

        Raises:
            UserError: the file is missing or damaged, or lacks, adds or reshapes an entry; nothing has changed then.
        """
        ours = self.encoder.state_dict()
        # Files from before PyTorch 0.4.1, torchvision's first ones among them, do not count batches.
        counts = {name: value for name, value in ours.items() if name.endswith("num_batches_tracked")}
        state = {name.removeprefix("module."): value for name, value in read_state(path).items()}
        state = counts | {
            name: value
            for name, value in state.items()
            if name in ours or (not name.startswith("fc.") and name.rpartition(".")[2] not in _AVERAGES)
        }
        try:
            copy_reference(state, ours, "ResNet-50 U-Net's encoder", "use a ResNet-50 in torchvision's layout")
        except UserError as error:
            raise UserError(f"{path}: {error}") from None


class _Encoder(nn.Module):
    """(B, 3, H, W) -> features of 1/2, 1/4, 1/8, 1/16 and 1/32 the size, with ``channels``."""

    def __init__(self, width: int, layers: Sequence[int]) -> None:
        super().__init__()
        self.channels = [width, *(4 * width << level for level in range(len(layers)))]
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for level, units in enumerate(layers):
            before, after = self.channels[level : level + 2]
            first = _Bottleneck(before, after, stride=2 if level else 1)
            others = (_Bottleneck(after, after) for _ in range(units - 1))
            self.add_module(f"layer{level + 1}", nn.Sequential(first, *others))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for level in range(1, len(self.channels)):
            x = self.get_submodule(f"layer{level}")(x)
            features.append(x)
        return features


class _Bottleneck(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        inner = after // 4
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))
            if before != after
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        result: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return result


class _Decoder(nn.Module):
    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        below, skips = [channels[0], *widths[:-1]], [*channels[1:], 0]
        self.blocks = nn.ModuleList(
            DecoderBlock(*sizes, nn.Upsample(scale_factor=2)) for sizes in zip(below, skips, widths, strict=True)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x, *skips = features[::-1]
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x = block(x, skip)
        return x
