"""What components declare of their cost, from their entries in the configuration."""

import functools
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diem.data import shapes

__all__ = [
    "CHUNK",
    "activations",
    "counts",
    "dense_size",
    "evaluations",
    "evaluations_per_step",
    "event_shape",
    "multiplications",
    "optimizer_steps",
    "products",
    "weights",
]

CHUNK = 64
"""Optimizer steps between two validation losses, :data:`diem.em.m_step.CHUNK`."""

DIGITS = 1797
"""Images of scikit-learn's digits."""

FASTMRI = {"train": 973, "held": 199}
"""Volumes of fastMRI's two single-coil knee archives."""


def event_shape(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the shape of one sample of a ``data`` entry."""
    name = data["name"]
    if name == "hdf5":
        return shapes.event_shape(data["path"])
    if name == "manifold":
        return (data["dimensions"],)
    if name == "digits":
        return (1, 8, 8)
    if name == "cifar10":
        return (3, 32, 32)
    channels = {"phantoms": 1 + bool(data.get("complex")), "fastmri": 1}.get(name, 3)
    return (channels, data["size"], data["size"])


def counts(data: Mapping[str, Any]) -> dict[str, int]:
    """Returns the number of samples by split, from the configuration alone where it tells.

    Of fastMRI every volume is taken to have all the slices that are asked for, and an archive to
    be the official one.

    Raises:
        DiemError: If only files can tell, and they are not there.
    """
    return dict(_counts(json.dumps(data)))


@functools.cache
def _counts(text: str) -> dict[str, int]:
    data = json.loads(text)
    name = data["name"]
    if name == "hdf5":
        with shapes._opened(data["path"]) as file:
            splits = ("train", "validation", "test")
            found = {key: file[f"{key}/y"].shape[0] for key in splits if f"{key}/y" in file}
        held = {k: max(1, round(data[k] * found["train"])) for k in splits if k not in found}
        return {**found, "train": found["train"] - sum(held.values()), **held}
    held = {split: data[split] for split in ("validation", "test")}
    if name == "digits":
        return {"train": DIGITS - sum(held.values()), **held}
    if name == "fastmri":
        from diem.data import fastmri

        is_folder = Path(data["path"]).is_dir()
        volumes = len(fastmri.names(data["path"])) if is_folder else FASTMRI["train"]
        if data["validation_path"] is None:
            volumes -= sum(held.values())
        slices = data["slices"][1] - data["slices"][0]
        return {key: count * slices for key, count in {"train": volumes, **held}.items()}
    train = data["train"]
    if train is None:
        from diem.data import images

        train = len(images.names(data["path"])) - sum(held.values())
    return {"train": train, **held}


def multiplications(network: Mapping[str, Any], shape: tuple[int, ...]) -> float:
    """Returns the multiplications of one forward pass of a network."""
    return _layers(network, shape)[0]


def activations(network: Mapping[str, Any], shape: tuple[int, ...]) -> float:
    """Returns how many values a forward pass keeps for a backward pass."""
    return _layers(network, shape)[1]


def _layers(network: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[float, float]:
    size = math.prod(shape)
    if network["name"] == "mlp":
        widths = [size + network["embedding"], *network["hidden"], size]
        return _dense(widths), 3.0 * sum(widths)
    if network["name"] == "residual_mlp":
        width, blocks = network["width"], network["blocks"]
        products = _dense([size, width, size]) + width * (network["embedding"] + 2 * blocks * width)
        return products, 2.0 * size + 5.0 * blocks * width
    channels, patch, kernel = network["channels"], network["patch"], network["kernel"] ** 2
    blocks = network["blocks"]
    blocks = [blocks] * len(channels) if isinstance(blocks, int) else blocks
    edge, pixels = shape[0] * patch**2, math.prod(shape[1:]) / patch**2
    products, kept = pixels * edge * channels[0] * (kernel + 1), 2.0 * size
    for level, (c, count) in enumerate(zip(channels, blocks, strict=True)):
        area = pixels / 4**level
        products += 2 * count * area * 2 * kernel * c**2
        kept += 2 * count * area * 8 * c
        if str(level) in network["attention"]:
            products += 2 * count * area * (4 * c**2 + 2 * area * c)
            kept += 2 * count * area * 8 * c
        if level > 0:
            finer = channels[level - 1]
            products += area * kernel * finer * c + 4 * area * kernel * finer * (finer + c)
    return products, kept


def _dense(widths: list[int]) -> float:
    return float(sum(a * b for a, b in itertools.pairwise(widths)))


def weights(network: Mapping[str, Any], shape: tuple[int, ...]) -> int:
    """Returns the number of a network's weights, which are not allocated."""
    import torch

    from diem import networks

    with torch.device("meta"):
        return sum(w.numel() for w in networks.build(dict(network), shape).parameters())


def evaluations_per_step(sampler: Mapping[str, Any]) -> int:
    """Returns the denoiser evaluations of a step of a ``sampler`` entry."""
    return 1 + sampler.get("corrections", 1) * (sampler.get("name") == "pc")


def evaluations(sampler: Mapping[str, Any]) -> int:
    """Returns the denoiser evaluations of a sample."""
    return sampler.get("steps", 256) * evaluations_per_step(sampler) + 1


def products(e_step: Mapping[str, Any]) -> int:
    """Returns the vector-Jacobian products of an evaluation of a posterior denoiser."""
    return e_step.get("iterations", 1) if e_step.get("covariance", "tweedie") == "tweedie" else 1


def optimizer_steps(m_step: Mapping[str, Any], samples: int) -> int:
    """Returns the optimizer steps of a training on some samples."""
    if m_step["epochs"] is None:
        return m_step["steps"]
    return max(1, m_step["epochs"] * samples // m_step["batch"])


def dense_size() -> int:
    """Returns the largest size of which the fit of the Gaussian works with whole matrices."""
    from diem.diffusion.gaussian import DENSE_SIZE

    return DENSE_SIZE
