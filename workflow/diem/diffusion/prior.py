r"""The prior: its Gaussian and its denoiser, and the file that holds them.

A learned prior is azula's :class:`azula.denoise.KarrasDenoiser` on a variance-exploding schedule
:math:`\sigma_t = \exp((1-t) \log \sigma_\min + t \log \sigma_\max)`: the preconditioning of EDM
with :math:`\sigma_{data} = 1`, as in the paper. It is saved as one safetensors file whose header
describes the network; nothing is pickled.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from azula.denoise import KarrasDenoiser
from azula.noise import VESchedule
from torch import Tensor, nn

from diem import __version__
from diem.diffusion.gaussian import Gaussian
from diem.errors import DiemError
from diem.files.tensors import load_tensors, save_tensors
from diem.networks import NETWORKS
from diem.seeds import global_stream

__all__ = ["CARD_RANGE", "Prior", "build_denoiser", "read_prior", "sample_range"]

CARD_RANGE = "sample_range"
"""The key of a card that tells between which values the samples lie that a prior was trained on."""

TAIL = 0.01
"""Such a part of the samples may reach beyond their range at either end."""


def build_denoiser(
    network: Mapping[str, Any], schedule: Mapping[str, Any], event_shape: tuple[int, ...], seed: int
) -> KarrasDenoiser:
    """Builds a denoiser with fresh weights.

    Arguments:
        network: The config's ``network`` entry.
        schedule: The config's ``schedule`` entry: ``sigma_min`` and ``sigma_max``.
        event_shape: The shape of one ``x``.
        seed: The seed of the weights.
    """
    with global_stream(seed):
        backbone = NETWORKS.parse(network).build(event_shape)
    return KarrasDenoiser(backbone, VESchedule(**schedule))


def sample_range(x: Tensor) -> list[float]:
    """Returns between which values nearly all samples lie, given samples ``(N, *event)``."""
    x = x.flatten(1)
    return [x.amin(dim=1).quantile(TAIL).item(), x.amax(dim=1).quantile(1 - TAIL).item()]


@dataclass
class Prior:
    """A prior: the Gaussian of its first two moments and, once trained, a denoiser.

    Arguments:
        gaussian: The Gaussian with the moments of the samples that the prior was trained on, or
            the prior itself where there is no denoiser.
        denoiser: The denoiser, or none for the Gaussian prior.
        card: What made it (network, schedule, experiment, run, lap, seed, steps, ...): JSON.
    """

    gaussian: Gaussian
    denoiser: KarrasDenoiser | None
    card: dict[str, Any]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one ``x``."""
        return tuple(self.gaussian.mean.shape)

    def to(self, device: str | torch.device) -> "Prior":
        """Returns the prior on another device."""
        denoiser = None if self.denoiser is None else self.denoiser.to(device)
        return Prior(self.gaussian.to(device), denoiser, self.card)

    def outlying(self, x: Tensor) -> Tensor:
        """Returns which samples have values far outside of those that the prior was trained on.

        Far is by more than half of the width of their range, which chains that blow up reach. Of a
        Gaussian prior, whose samples are exact, none is.

        Arguments:
            x: The samples, of shape ``(*, *event)``.

        Returns:
            Booleans of shape ``(*,)``.
        """
        low, high = self.card.get(CARD_RANGE, (-math.inf, math.inf))
        slack = (high - low) / 2
        far = (x < low - slack) | (x > high + slack) | x.isnan()
        return far.flatten(x.ndim - len(self.event_shape)).any(dim=-1)

    def save(self, path: str | Path) -> None:
        """Writes the prior to one safetensors file, whole or not at all."""
        gaussian = self.gaussian
        tensors = {
            "gaussian.mean": gaussian.mean,
            "gaussian.noise": gaussian.noise,
            "gaussian.factors": gaussian.factors,
        }
        if self.denoiser is not None:
            state = self.denoiser.backbone.state_dict()
            tensors |= {f"network.{key}": value for key, value in state.items()}
        card = {**self.card, "event_shape": list(self.event_shape), "version": __version__}
        save_tensors(path, tensors, {"diem": json.dumps(card)})


CRAFTED = (
    *(DiemError, ArithmeticError, AttributeError, KeyError, MemoryError, RecursionError),
    *(RuntimeError, TypeError, ValueError),
)
"""What the description of a network that is none can raise while the network is built."""

SCHEDULE = ("sigma_min", "sigma_max")

SLACK = 2**16
"""Values that a network may hold while it is built beside twice those that its file holds."""


def _check_card(card: Any) -> None:
    """Raises a ValueError if what later code reads of a card is of another type."""
    if not isinstance(card, dict):
        raise ValueError("card")
    for key in ("data", "e_step", "posterior", "schedule"):
        if not isinstance(card.get(key, {}), dict):
            raise ValueError(f"mapping {key!r}")
    for key in ("e_step", "posterior"):
        if not isinstance(card.get(key, {}).get("sampler", {}), dict):
            raise ValueError(f"mapping '{key}.sampler'")
    for key, name in (("data", "offset"), ("data", "scale"), *(("schedule", n) for n in SCHEDULE)):
        value = card.get(key, {}).get(name, 1.0)
        values = value if isinstance(value, list) and key == "data" else [value]
        if values is value and [len(values)] != card["event_shape"][:1]:
            raise ValueError(f"list {key}.{name} of one number a column or channel")
        for value in values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or (name != "offset" and value <= 0):
                raise ValueError(f"usable number {key}.{name}")


def _check_sizes(network: Any, size: int) -> None:
    """Refuses numbers in the description of a built-in network that are more than all its weights.

    Arguments:
        network: The entry of the configuration that a file tells.
        size: The number of weights in the file.

    Raises:
        DiemError: If there is one.
    """
    if not isinstance(network, dict):
        raise DiemError("network is no mapping")
    inner = [value for key, value in network.items() if key != "name"]
    own = ":" in str(network.get("name"))
    while inner and not own:
        value = inner.pop()
        if isinstance(value, dict | list):
            if len(value) > max(size, 1024):
                raise DiemError(f"network has a list of {len(value):,}")
            inner += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int | float) and abs(value) > max(size, 1024):
            raise DiemError(f"network has a size of {value}, and the file has {size:,} weights")


@contextlib.contextmanager
def _no_larger_than(size: int) -> Iterator[None]:
    """Stops the building of a network that grows beyond what a file holds, before memory is full.

    Arguments:
        size: The number of weights in the file.
    """
    held = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal held
        held += 0 if parameter is None else parameter.numel()
        if held > 2 * size + SLACK:
            raise DiemError(f"it is larger than the {size:,} weights that the file holds")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def read_prior(
    path: str | Path,
    network: Mapping[str, Any] | None = None,
    event_shape: tuple[int, ...] | None = None,
) -> Prior:
    """Reads a prior, on the CPU and ready to sample: no parameter requires gradients.

    Arguments:
        path: A file written by :meth:`Prior.save`.
        network: If given, the ``network`` entry that the file must have been trained with.
        event_shape: If given, the event's shape that the file must have.

    A network of the user's own, which the file names by its import path, is imported: load files
    of others only where you trust the module of that name.

    Raises:
        DiemError: If the file cannot be read, holds another network or event, or its network
            cannot be imported.
    """
    tensors, header = load_tensors(path)
    try:
        card = json.loads(header["diem"])
        _check_card(card)
        shape = tuple(card["event_shape"])
        parts = (tensors[f"gaussian.{name}"] for name in ("mean", "noise", "factors"))
        gaussian = Gaussian(*parts)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DiemError(f"{path}: this is no prior written by diem (no {error}).") from None
    if not all(value.is_floating_point() for value in vars(gaussian).values()) or not (
        gaussian.noise.shape == () and gaussian.noise >= 0
    ):
        raise DiemError(f"{path}: its Gaussian is none (its types, or its noise).")
    if tuple(gaussian.mean.shape) != shape or tuple(gaussian.factors.shape[:-1]) != shape:
        raise DiemError(f"{path}: its Gaussian does not have the shape {shape} of its data.")
    if event_shape is not None and shape != tuple(event_shape):
        raise DiemError(f"{path}: its data have shape {shape}, where {tuple(event_shape)} is used.")

    stored = card.get("network")
    network = None if network is None else json.loads(json.dumps(dict(network)))
    if network is not None and stored is not None and network != stored:
        keys = {*network, *stored}
        key = min(k for k in keys if network.get(k) != stored.get(k))
        raise DiemError(
            f"{path}: this is a checkpoint of another network: network.{key} is"
            f" {stored.get(key)!r} in the file and {network.get(key)!r} in the config."
        )
    if stored is None:
        return Prior(gaussian, None, card)
    size = sum(value.numel() for name, value in tensors.items() if name.startswith("network."))
    try:
        _check_sizes(stored, size)
        with _no_larger_than(size):
            denoiser = build_denoiser(stored, card["schedule"], shape, seed=0)
    except CRAFTED as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        if isinstance(stored, dict) and ":" in str(stored.get("name")):
            raise DiemError(f"{path}: {reason}, and the prior needs it.") from None
        raise DiemError(f"{path}: its header does not describe a network: {reason}.") from None
    state = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    try:
        denoiser.backbone.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DiemError(f"{path}: its weights do not fit its own network: {reason}") from None
    return Prior(gaussian, denoiser.eval().requires_grad_(False), card)
