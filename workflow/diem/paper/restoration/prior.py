"""The prior of a comparison: a denoiser of images in [-1, 1], trained here or given by the user."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from azula.denoise import Denoiser, DiracPosterior, KarrasDenoiser
from azula.noise import Schedule, VPSchedule
from azula.plugins import adm
from azula.plugins.utils import load_cards
from torch import Tensor

from diem.diffusion.prior import read_prior
from diem.errors import DiemError
from diem.files.tensors import content_digest, load_tensors, load_weights

__all__ = ["DDPMLevels", "HalvedDenoiser", "architecture", "pretrained", "respaced", "trained"]

LEVELS = 1000
"""The noise levels of DDPM."""


class _Doubled(Schedule):
    """The schedule of ``2 x`` where another is that of ``x``."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        return alpha, 2 * sigma


class DDPMLevels(Schedule):
    r"""DDPM's noise levels, of which as many are left as there are steps, from the last to none.

    .. math:: \alpha_k^2 = \prod_{i \leq k} (1 - \beta_i), \quad \sigma_k^2 = 1 - \alpha_k^2

    for :math:`k = 1, \dots, 1000`, with :math:`\beta` from 1e-4 to 0.02 in equal steps. At the
    time :math:`j / n`, :math:`n` the number of steps, it is the level nearest to the :math:`j`-th
    of :math:`n` in equal distances from the first level to the last; at the time 0 there is no
    noise. azula's plugin finds a level's number by its noise, in single precision to one.

    References:
        | Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021)
        | https://arxiv.org/abs/2102.09672

    Arguments:
        steps: The number of steps, from 1 to 1,000.
    """

    def __init__(self, steps: int) -> None:
        first = 0 if steps > 1 else LEVELS - 1
        kept = np.round(np.linspace(first, LEVELS - 1, steps)).astype(int)
        powers = np.cumprod(1 - np.linspace(1e-4, 0.02, LEVELS))[kept]
        self.steps, self.powers = steps, torch.from_numpy(np.concatenate(([1.0], powers)))

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        power = self.powers.to(t.device)[(t * self.steps).round().long()]
        return power.sqrt().to(t.dtype), (1 - power).sqrt().to(t.dtype)


class HalvedDenoiser(Denoiser):
    """The denoiser of images in [-1, 1], by a network that was trained on [-2, 2].

    Arguments:
        backbone: The network.
        schedule: The schedule to sample on.
        clip: Whether denoised images are clipped to [-1, 1].
    """

    def __init__(self, backbone: torch.nn.Module, schedule: Schedule, clip: bool = False) -> None:
        super().__init__()
        self.backbone, self.schedule, self.clip = backbone, schedule, clip

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Denoises on [-2, 2]."""
        doubled = KarrasDenoiser(self.backbone, _Doubled(self.schedule))
        mean = doubled(2 * x_t, t, **kwargs).mean / 2
        return DiracPosterior(mean=mean.clip(-1, 1) if self.clip else mean)


def respaced(denoiser: Denoiser, steps: int) -> Denoiser:
    """Returns the same denoiser on DDPM's noise levels, respaced to a number of steps."""
    other = copy.copy(denoiser)
    other.schedule = DDPMLevels(steps)
    return other


def trained(
    path: str | Path, schedule: Mapping[str, float], clip: bool = False
) -> tuple[Denoiser, dict[str, Any]]:
    """Loads a prior that this workflow trained, as a denoiser of images in [-1, 1].

    The network knows the noise by its ratio to the signal, so that it serves any schedule.

    Arguments:
        path: The prior's file.
        schedule: The variance-preserving schedule to sample on: ``alpha_min`` and ``sigma_min``.
        clip: Whether denoised images are clipped to [-1, 1].

    Returns:
        The denoiser, and what rows say of it: ``prior`` in words, and ``optimizer_steps``.
    """
    prior = read_prior(path)
    assert prior.denoiser is not None, "a trained prior has a network"
    steps = prior.card["optimizer_steps"]
    columns = {
        "prior": f"a {prior.card['network']['name']} of {steps:,} optimizer steps on"
        f" {prior.card['training_samples']:,} clean images ({content_digest([path])})",
        "optimizer_steps": steps,
    }
    denoiser = HalvedDenoiser(prior.denoiser.backbone, VPSchedule(**schedule), clip)
    return denoiser.eval(), columns


def architecture(name: str) -> Denoiser:
    """Builds a denoiser of azula's plugin for ADM, with fresh weights."""
    return adm.make_model(**load_cards("azula.plugins.adm")[name].config)


def pretrained(
    name: str, weights: str | Path, schedule: Mapping[str, float], clip: bool = False
) -> tuple[Denoiser, dict[str, Any]]:
    """Loads a pretrained denoiser of azula's plugin for ADM, from weights that the user gives.

    Arguments:
        name: The name of azula's card.
        weights: The weights: a PyTorch file, from which nothing but tensors is loaded, or
            safetensors.
        schedule: The variance-preserving schedule to sample on: ``alpha_min`` and ``sigma_min``.
        clip: Whether denoised images are clipped to [-1, 1].

    Returns:
        The denoiser, and what rows say of it: ``prior`` in words, and ``optimizer_steps``.

    Raises:
        DiemError: If the file is missing, or does not hold the weights of this network.
    """
    path = Path(weights)
    if path.suffix == ".safetensors":
        state, _ = load_tensors(path, ours=False)
    elif path.is_file():
        state = load_weights(path)
    else:
        raise DiemError(f"pretrained.weights: there is no such file: {path}.")
    denoiser = architecture(name)
    try:
        denoiser.backbone.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DiemError(f"{path}: these are no weights of {name!r} ({reason}).") from None
    denoiser.schedule, denoiser.clip_mean = VPSchedule(**schedule), clip
    columns = {"prior": f"the pretrained {name} ({content_digest([path])})", "optimizer_steps": ""}
    return denoiser.eval().requires_grad_(False), columns
