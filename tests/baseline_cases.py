"""The oracles of Table 1's networks: weights by the fill rule, what happens inside, and how far it is from theirs."""

__all__ = ["Case", "assert_equals", "assert_gradients_equal"]

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Largest differences allowed, by precision; ReLUs near zero change sides in float32.
VALUES = {torch.float64: 1e-9, torch.float32: 1e-4}
GRADIENTS = {torch.float64: 1e-9, torch.float32: 3e-2}


class Case:
    """One oracle: ``config``, the numbers ``want``, and a network filled by the rule to compare with them."""

    def __init__(self, path: Path, fill: Callable[[Mapping[str, Any], int], dict[str, Tensor]]) -> None:
        with np.load(path) as file:
            self.want = dict(file)
        self.config = json.loads(str(self.want.pop("config")))
        self.fill = fill

    def filled(self, build: Callable[[], Any], dtype: torch.dtype) -> Any:
        """The network that ``build`` makes, with the oracle's weights, loaded under the reference's names."""
        with torch.device("meta"):
            network = build()
        network.to_empty(device="cpu")
        shapes = {name: shape for name, shape, _ in self.config["state_dict"]}
        initial = {"running_mean": torch.zeros, "running_var": torch.ones, "num_batches_tracked": torch.zeros}
        kept = {name: initial[end](shapes[name]) for name in shapes if (end := name.split(".")[-1]) in initial}
        drawn = {name: shape for name, shape in shapes.items() if name not in kept}
        network.load_reference(kept | self.fill(drawn, self.config["seed"]))
        return network.to(dtype)

    def image(self, batch: int, dtype: torch.dtype) -> Tensor:
        shape = (batch, 3, self.config["image_size"], self.config["image_size"])
        x = np.random.default_rng([self.config["seed"], 1]).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(x).to(dtype)


def _measure(x: Tensor, count: int) -> tuple[np.ndarray, float, float]:
    flat = x.detach().flatten().double().numpy()
    return flat[np.linspace(0, flat.size - 1, count).astype(np.int64)], flat.mean(), flat.std()


def assert_equals(
    case: Case, network: nn.Module, mode: str, dtype: torch.dtype, picks: Mapping[str, Callable[[Any], Tensor]]
) -> Tensor:
    """Compares output and activations of ``mode`` (eval or train), first to last, and returns the output.

    ``picks`` tells which part of a module's output an activation is, where it isn't all of it.
    """
    prefix = f"double/{mode}" if dtype == torch.float64 else mode
    got = {}

    def keep(key: str, x: Tensor) -> None:
        got[key] = _measure(x, case.want[f"{key}/values"].size)

    handles = [
        network.get_submodule(module).register_forward_hook(
            lambda _, __, x, name=name: keep(f"{prefix}/{name}", picks[name](x) if name in picks else x)
        )
        for name, module in case.config["activations"].items()
    ]
    network.train(mode == "train")
    with torch.set_grad_enabled(mode == "train"):
        output = network.scores(case.image(2 if mode == "train" else 1, dtype))
    for handle in handles:
        handle.remove()
    keep(prefix, output)
    assert list(output.shape) == case.config["shapes"][mode]
    assert len(got) == 1 + len(case.config["activations"])
    for key, (values, mean, std) in got.items():
        wanted, (wanted_mean, wanted_std) = case.want[f"{key}/values"], case.want[f"{key}/meanstd"]
        assert np.abs(values - wanted).max() < VALUES[dtype] * np.abs(wanted).max(), key
        assert abs(mean - wanted_mean) < VALUES[dtype] * wanted_std, key
        assert abs(std / wanted_std - 1) < VALUES[dtype], key
    return output


def assert_gradients_equal(case: Case, network: nn.Module, output: Tensor, dtype: torch.dtype) -> None:
    """Compares loss and gradient norms after ``output`` of the train pass; every gradient that should be there is."""
    loss = output.square().mean()
    loss.backward()
    double = dtype == torch.float64
    wanted = float(case.want["double/train/loss" if double else "train/loss"])
    assert abs(float(loss.detach()) / wanted - 1) < VALUES[dtype]
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert sorted(name for name, gradient in gradients.items() if gradient is None) == case.config["without_gradient"]
    for place, name in enumerate(case.config["grad_norm_order"]):
        norm = float(case.want["double/grad_norm"][place] if double else case.want[f"grad_norm/{name}"])
        assert abs(float(gradients[name].norm()) / norm - 1) < GRADIENTS[dtype], name
