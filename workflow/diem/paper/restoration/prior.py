"""The prior of a comparison: a denoiser of images in [-1, 1], trained here or given by the user."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from azula.denoise import Denoiser, DiracPosterior, KarrasDenoiser
from azula.noise import Schedule, VPSchedule
from azula.plugins import adm
from azula.plugins.utils import load_cards
from torch import Tensor

from diem.diffusion.prior import read_prior
from diem.errors import DiemError
from diem.files.tensors import content_digest, load_tensors, load_weights

__all__ = ["HalvedDenoiser", "architecture", "pretrained", "trained"]


class _Doubled(Schedule):
    """The schedule of ``2 x`` where another is that of ``x``."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        return alpha, 2 * sigma


class HalvedDenoiser(Denoiser):
    """The denoiser of images in [-1, 1], by a network that was trained on [-2, 2]."""

    def __init__(self, backbone: torch.nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.denoiser = KarrasDenoiser(backbone, _Doubled(schedule))
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Denoises on [-2, 2]."""
        return DiracPosterior(mean=self.denoiser(2 * x_t, t, **kwargs).mean / 2)


def trained(path: str | Path, schedule: Mapping[str, float]) -> tuple[Denoiser, dict[str, Any]]:
    """Loads a prior that this workflow trained, as a denoiser of images in [-1, 1].

    The network knows the noise by its ratio to the signal, so that it serves any schedule.

    Arguments:
        path: The prior's file.
        schedule: The variance-preserving schedule to sample on: ``alpha_min`` and ``sigma_min``.

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
    return HalvedDenoiser(prior.denoiser.backbone, VPSchedule(**schedule)).eval(), columns


def architecture(name: str) -> Denoiser:
    """Builds a denoiser of azula's plugin for ADM, with fresh weights."""
    return adm.make_model(**load_cards("azula.plugins.adm")[name].config)


def pretrained(
    name: str, weights: str | Path, schedule: Mapping[str, float]
) -> tuple[Denoiser, dict[str, Any]]:
    """Loads a pretrained denoiser of azula's plugin for ADM, from weights that the user gives.

    Arguments:
        name: The name of azula's card.
        weights: The weights: a PyTorch file, from which nothing but tensors is loaded, or
            safetensors.
        schedule: The variance-preserving schedule to sample on: ``alpha_min`` and ``sigma_min``.

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
    denoiser.schedule = VPSchedule(**schedule)
    columns = {"prior": f"the pretrained {name} ({content_digest([path])})", "optimizer_steps": ""}
    return denoiser.eval().requires_grad_(False), columns
