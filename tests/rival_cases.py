"""What the tests of the networks that the paper compares with share: small ones, oracles, the distance from them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from textdiff.models.networks.rivals import LViTRival, ResNet50UNetRival, SwinUNetRival, TransUNetRival

# Arguments that make the published networks small.
SMALL = {
    ResNet50UNetRival: {"width": 8, "layers": (1, 1, 1, 1), "decoder": (16, 8, 8, 8, 4)},
    TransUNetRival: {
        **{"width": 32, "units": (1, 1, 1), "dim": 24, "depth": 2, "heads": 3, "mlp": 48},
        "decoder": (16, 8, 8, 8, 4),
    },
    SwinUNetRival: {"width": 8, "depths": (2, 2), "heads": (1, 2)},
    LViTRival: {"width": 16, "heads": 2, "text_dim": 32},
}
# Float32's own error grows through batch statistics, and in gradients where a ReLU's input changes sides.
LIMITS = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 3e-2)}
"""The largest difference of values and of gradient norms, relative to the oracle's."""


class Oracle(NamedTuple):
    """The numbers of a published network, its ``config``, and the weights that the rule gives it."""

    numbers: dict[str, np.ndarray]
    config: dict[str, Any]
    state: dict[str, Tensor]

    def wanted(self, dtype: torch.dtype) -> dict[str, np.ndarray]:
        """The numbers computed in ``dtype``, gradient norms by parameter."""
        if dtype == torch.float32:
            return {key: value for key, value in self.numbers.items() if not key.startswith("double/")}
        double = {key[len("double/") :]: value for key, value in self.numbers.items() if key.startswith("double/")}
        norms = zip(self.config["grad_norm_order"], double.pop("grad_norm"), strict=True)
        return double | {f"grad_norm/{name}": norm for name, norm in norms}

    def inputs(self, mode: str, dtype: torch.dtype) -> list[Tensor]:
        """One image in ``eval``, two in ``train``; for a network that reads texts these too, or pixels instead."""
        if "features" in self.config:
            shapes = [(256, self.config["features"])]
        else:
            batch, size = {"eval": 1, "train": 2}[mode], self.config["image_size"]
            shapes = [(batch, 3, size, size)]
        if "text_tokens" in self.config:
            shapes.append((batch, self.config["text_tokens"], self.config["text_width"]))
        draws = [np.random.default_rng([self.config["seed"], number]) for number in (1, 2)]
        return [
            torch.from_numpy(draw.standard_normal(shape, dtype=np.float32)).to(dtype)
            for draw, shape in zip(draws, shapes, strict=False)
        ]

    def filled(self, build: Callable[[], Any], dtype: torch.dtype) -> Any:
        """The network that ``build`` makes, with the oracle's weights, loaded under the reference's names."""
        with torch.device("meta"):
            network = build()
        network.to_empty(device="cpu")
        network.load_reference(self.state)
        return network.to(dtype)


def read_oracle(path: Path, fill: Callable[..., dict[str, Tensor]]) -> Oracle:
    """An oracle with ``fill`` (``oracle_fill``) for the weights; what the rule leaves alone is as PyTorch begins."""
    with np.load(path) as file:
        numbers = dict(file)
    config = json.loads(str(numbers.pop("config")))
    state, drawn = {}, {}
    for name, shape, dtype in config["state_dict"]:
        if name in config["kept"] or "running_" in name or dtype != "float32":
            state[name] = torch.full(shape, float(name.endswith("running_var")), dtype=getattr(torch, dtype))
        else:
            drawn[name] = shape
    return Oracle(numbers, config, state | fill(drawn, config["seed"]))


def assert_equals_the_oracle(
    oracle: Oracle,
    network: nn.Module,
    mode: str,
    places: Mapping[str, nn.Module] | None = None,
    last: nn.Module | None = None,
    theirs: Callable[[str], str] = str,
    gradients: bool = True,
    picks: Mapping[str, Callable[[Any], Tensor]] | None = None,
) -> None:
    """Compares output (after ``last``), activations and, in ``train``, gradients, in the dtype of the network.

    ``places`` are the modules that make the oracle's activations, by default those of the oracle's names; ``picks``
    tells which part of a module's output an activation is, where it is not all of it. ``theirs`` gives the oracle's
    name of a parameter.
    """
    dtype = next(network.parameters()).dtype
    wanted, (near, near_norm), seen = oracle.wanted(dtype), LIMITS[dtype], {}
    picks = picks or {}
    if places is None:
        places = {name: network.get_submodule(module) for name, module in oracle.config["activations"].items()}

    def keep(name: str, out: Any) -> None:
        seen[name] = (picks[name](out) if name in picks else out).detach()

    for name, module in places.items():
        module.register_forward_hook(lambda _module, _inputs, out, name=name: keep(name, out))
    network.train(mode == "train")
    with torch.set_grad_enabled(mode == "train"):
        output = getattr(network, "scores", network)(*oracle.inputs(mode, dtype))
        output = output if last is None else last(output)
    assert list(output.shape) == oracle.config["shapes"][mode]
    apart = {name: _apart(value, wanted, f"{mode}/{name}") for name, value in seen.items()}
    apart["output"] = _apart(output.detach(), wanted, mode)
    assert set(apart) == {*oracle.config["activations"], "output"}
    assert {name: value for name, value in apart.items() if not value < near} == {}
    if mode == "train":
        loss = output.square().mean()
        loss.backward()
        assert abs(float(loss.detach()) / float(wanted["train/loss"]) - 1) < near
        got = {theirs(name): float(p.grad.double().norm()) for name, p in network.named_parameters()}
        # The oracle leaves out those that would be zero without rounding.
        assert set(got) - set(oracle.config["null_gradient"]) == set(oracle.config["grad_norm_order"])
        norms = {name: abs(got[name] / wanted[f"grad_norm/{name}"] - 1) for name in oracle.config["grad_norm_order"]}
        assert not gradients or {name: value for name, value in norms.items() if not value < near_norm} == {}


def _apart(value: Tensor, wanted: Mapping[str, np.ndarray], key: str) -> float:
    """The largest relative difference from an oracle's sampled values, and from their mean and deviation."""
    flat = value.flatten().double().numpy()
    values, (mean, deviation) = wanted[f"{key}/values"], wanted[f"{key}/meanstd"]
    sampled = flat[np.linspace(0, flat.size - 1, values.size).astype(np.int64)]
    differences = np.abs(sampled - values).max() / np.abs(values).max(), abs(flat.mean() - mean) / deviation
    return float(max(*differences, abs(flat.std() / deviation - 1)))
