"""The decoder of a latent diffusion model, as Stable Diffusion 1 and 2 are, read by the diffusers library."""

__all__ = ["Latent"]

import importlib.util
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from textdiff.errors import UserError
from textdiff.models.backbones.base import Backbone
from textdiff.models.backbones.corruption import STEPS
from textdiff.models.downloads.image_models import CARD, find_model, licence_of, revision_of, weight_files
from textdiff.models.pretrained import load_model, loading, quiet
from textdiff.models.weights import ResolvedWeights

INDEX, SCHEDULE = "model_index.json", "scheduler/scheduler_config.json"
_PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
_KIND = "a part of Stable Diffusion 1 or 2"


class Latent(Backbone):
    """Level k, from 1, is the output of the UNet's k-th up block; level 0 is the image itself in [-1, 1].

    The autoencoder's mean of an image (Rombach et al. 2022, https://arxiv.org/abs/2112.10752), scaled, is noised to t
    by the model's own schedule and goes through the UNet with the embedding of the empty prompt, as where guidance by
    text is left out. The noise is one draw for all images, of the seed, made on the CPU. Images are resized to the next
    multiple of what the coarsest block needs.

    Args:
        unet: the ``UNet2DConditionModel`` of diffusers.
        vae: the ``AutoencoderKL``, whose decoder is not used.
        alphas: (1000,) the share of the signal's variance that is left at each step.
        prompt: (1, L, D) the embedding of the empty prompt.
    """

    steps = range(STEPS)
    _alphas: Tensor
    _prompt: Tensor
    noise: Tensor

    def __init__(self, unet: Any, vae: Any, alphas: Tensor, prompt: Tensor) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae
        self.register_buffer("_alphas", alphas, persistent=False)
        self.register_buffer("_prompt", prompt, persistent=False)
        self._factor = 2 ** (len(vae.config.block_out_channels) - 1)  # of the image's side to the latent's
        self._blocks = len(unet.up_blocks)
        self._side = self._factor * 2 ** (self._blocks - 1)
        self.config = {"latent": type(unet).__name__, "scaling": vae.config.scaling_factor, "multiple": self._side}

    @classmethod
    def find(cls, name: str, of: str, *, download: bool = True) -> ResolvedWeights:
        """The files of the pipeline in that directory, or of that id on the hub."""
        if importlib.util.find_spec("diffusers") is None:
            raise UserError(f'{name}: needs diffusers; pip install "textdiff[diffusion]"')
        return find_model(name, of, INDEX, partial(_wanted, name), download=download)

    @classmethod
    def open(cls, found: ResolvedWeights, image_size: int, device: torch.device) -> Self:
        """The network with its weights, and the prompt's embedding; the text encoder is not kept."""
        from diffusers import AutoencoderKL, UNet2DConditionModel

        directory, name = found.path.parents[1], found.name
        with quiet(), _quiet():
            alphas = _alphas(name, directory)
            unet = _part(UNet2DConditionModel, name, directory, "unet")
            vae = _part(AutoencoderKL, name, directory, "vae")
            prompt = _prompt(name, directory)
        _check(name, unet, vae, prompt)
        vae.decoder = vae.post_quant_conv = None
        backbone = cls(unet, vae, alphas, prompt)
        backbone.licence = licence_of(directory)
        backbone.revision = revision_of(name)
        return backbone

    def prepare(self, image_size: int, seed: int, colour: str) -> None:
        """Draws the noise, of the latent's size."""
        side = (image_size + -image_size % self._side) // self._factor
        draw = torch.Generator().manual_seed(seed)
        self.register_buffer("noise", torch.randn(1, self.unet.config.in_channels, side, side, generator=draw), False)

    def levels(self, image_size: int) -> dict[int, tuple[int, int, int]]:
        """The image's shape and those of the up blocks, each of which but the last doubles the sides."""
        coarsest = (image_size + -image_size % self._side) // self._side
        widths = reversed(self.unet.config.block_out_channels)
        sides = (coarsest * 2 ** min(block + 1, self._blocks - 1) for block in range(self._blocks))
        shapes = ((width, side, side) for width, side in zip(widths, sides, strict=True))
        return {0: (3, image_size, image_size), **dict(enumerate(shapes, 1))}

    def features(self, images: Tensor, t: Tensor, texts: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """The image, and the up blocks' outputs at steps ``t``."""
        x = images.float() / 127.5 - 1
        found = {0: x}
        wanted = sorted(set(levels))
        if wanted[-1] > 0:
            sides = [side + -side % self._side for side in x.shape[-2:]]
            if sides != [*x.shape[-2:]]:
                x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
            z = self._noised(self._latents(x), t)
            with self._watched(found):
                self.unet(z, t, self._prompt.expand(len(z), -1, -1))
        return {level: found[level] for level in wanted}

    def _latents(self, x: Tensor) -> Tensor:
        """The autoencoder's means; copies of an image for several steps, which follow one another, are encoded once."""
        first = [not i or not torch.equal(x[i], x[i - 1]) for i in range(len(x))]
        once = self.vae.encode(x[torch.tensor(first)]).latent_dist.mean * self.vae.config.scaling_factor
        of = torch.tensor(first).cumsum(0) - 1
        latents: Tensor = once[of]
        return latents

    def _noised(self, latents: Tensor, t: Tensor) -> Tensor:
        """sqrt(a_t) z + sqrt(1 - a_t) noise, of latents (B, C, h, w)."""
        a = self._alphas[t][:, None, None, None]
        height, width = latents.shape[-2:]
        return a.sqrt() * latents.float() + (1 - a).sqrt() * self.noise[..., :height, :width]

    @contextmanager
    def _watched(self, found: dict[int, Tensor]) -> Iterator[None]:
        """Has every up block put its output into ``found``."""

        def keep(level: int, block: Any, given: Any, made: Tensor) -> None:
            found[level] = made

        hooks = [
            block.register_forward_hook(partial(keep, level)) for level, block in enumerate(self.unet.up_blocks, 1)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _wanted(name: str, files: Collection[str]) -> list[str]:
    """The files that are needed, the UNet's weights first."""
    if INDEX not in files:
        hint = f"; --backbone hub:{name.partition(':')[2]} takes it" if "config.json" in files else ""
        raise UserError(f"{name}: there is no {INDEX}, so it is no pipeline of diffusers{hint}")
    weights = [file for part, stem in _PARTS.items() for file in weight_files(name, files, stem, f"{part}/")]
    configs = [INDEX, SCHEDULE, *(f"{part}/config.json" for part in _PARTS)]
    if lost := [file for file in configs if file not in files]:
        raise UserError(f"{name}: there is no {lost[0]}; name a pipeline of Stable Diffusion 1 or 2, whole")
    words = sorted(file for file in files if file.startswith("tokenizer/"))
    return [*weights, *configs, *words, *({CARD} & set(files))]


def _part(kind: Any, name: str, directory: Path, folder: str) -> Any:
    """A network of diffusers with all its weights, frozen, in float32."""
    with loading(name, directory / folder, _KIND):
        model, report = kind.from_pretrained(
            directory / folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    if lost := report["missing_keys"]:
        raise UserError(f"{name}: {directory / folder} lacks the weights {lost[0]} and {len(lost) - 1} others")
    return model.float().eval().requires_grad_(False)


def _alphas(name: str, directory: Path) -> Tensor:
    """The products of 1 - beta by the schedule's configuration."""
    from diffusers import DDPMScheduler

    with loading(name, directory / SCHEDULE, _KIND):
        config = json.loads((directory / SCHEDULE).read_text(encoding="utf-8"))
        alphas: Tensor = DDPMScheduler.from_config(config).alphas_cumprod  # type: ignore[no-untyped-call]
    if len(alphas) != STEPS:
        raise UserError(f"{name}: its schedule has {len(alphas)} steps, and {STEPS} are needed; name another model")
    return alphas


def _prompt(name: str, directory: Path) -> Tensor:
    """The embedding of the empty prompt, padded as in diffusers' pipeline."""
    from transformers import AutoTokenizer

    with loading(name, directory / "tokenizer", _KIND):
        tokenizer = AutoTokenizer.from_pretrained(directory / "tokenizer", local_files_only=True)
        words = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    encoder = load_model(name, directory / "text_encoder", _KIND, lambda _, model: model)
    with loading(name, directory / "text_encoder", _KIND), torch.no_grad():
        embedded: Tensor = encoder(words["input_ids"]).last_hidden_state
    return embedded


def _check(name: str, unet: Any, vae: Any, prompt: Tensor) -> None:
    """Refuses models that need more than an image, a step and a text, as those for inpainting and SDXL do."""
    if (
        unet.config.in_channels != vae.config.latent_channels
        or unet.config.addition_embed_type is not None
        or unet.config.class_embed_type is not None
        or unet.config.num_class_embeds is not None
        or unet.config.cross_attention_dim != prompt.shape[-1]
    ):
        raise UserError(
            f"{name}: its UNet takes more than an image, a step and a text; name a plain model of Stable Diffusion 1 "
            "or 2, none for inpainting, upscaling or depth, and not SDXL"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps diffusers' advice off standard error."""
    from diffusers.utils import logging as noise

    before = noise.get_verbosity()
    noise.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        noise.set_verbosity(before)
