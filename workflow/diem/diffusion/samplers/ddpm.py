"""Ancestral sampling."""

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

    def step(self, denoise, x_t, t, s, noise):
        tau = 1 - (s.sigma / t.sigma) ** 2
        return x_t - tau * (x_t - denoise(x_t, t)) + s.sigma * torch.sqrt(tau) * noise()
