r"""The prior: its Gaussian and its denoiser, and the file that holds them.

A learned prior is azula's :class:`azula.denoise.KarrasDenoiser` on a variance-exploding schedule
:math:`\sigma_t = \exp((1-t) \log \sigma_\min + t \log \sigma_\max)`: the preconditioning of EDM
with :math:`\sigma_{data} = 1`, as in the paper. It is saved as one safetensors file whose header
describes the network; nothing is pickled.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from azula.denoise import KarrasDenoiser
from azula.noise import VESchedule
from torch import Tensor

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
        shape = tuple(card["event_shape"])
        parts = (tensors[f"gaussian.{name}"] for name in ("mean", "noise", "factors"))
        gaussian = Gaussian(*parts)
    except (KeyError, TypeError, ValueError) as error:
        raise DiemError(f"{path}: this is no prior written by diem (no {error}).") from None
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
    try:
        denoiser = build_denoiser(stored, card["schedule"], shape, seed=0)
    except (DiemError, KeyError, TypeError, ValueError) as error:
        reason = str(error).rstrip(".")
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
