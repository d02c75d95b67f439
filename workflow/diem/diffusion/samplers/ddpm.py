"""Ancestral sampling."""

from typing import Literal

from diem.components import option
from diem.diffusion.samplers.base import Sampler
from diem.lazy import torch

__all__ = ["DDPM"]


class DDPM(Sampler):
    r"""Steps with fresh noise, as in the paper's E-step.

    .. math:: x_s = x_t - \tau (x_t - d(x_t)) + \sigma_s \sqrt{\tau} \, \epsilon, \qquad
        \tau = 1 - \sigma_s^2 / \sigma_t^2 .

    References:
        | Denoising Diffusion Probabilistic Models (Ho et al., 2020)
        | https://arxiv.org/abs/2006.11239
    """

    name = "ddpm"

    spread: Literal["none", "last", "all"] = option(
        "none",
        "where each step adds the spread of `x` given `x_t`, without which the samples of few steps"
        " vary too little: nowhere (`none`), in the last lap's E-step (`last`) or in every lap's"
        " (`all`), and with both in all samples outside of the E-step",
        paper="`none`",
    )

    @property
    def adds_spread(self) -> bool:
        return self.spread != "none"

    def step(self, denoise, x_t, t, s, noise):
        tau = 1 - (s.sigma / t.sigma) ** 2
        return x_t - tau * (x_t - denoise(x_t, t)) + s.sigma * torch.sqrt(tau) * noise()
