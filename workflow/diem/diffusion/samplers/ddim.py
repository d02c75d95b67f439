"""Deterministic sampling."""

from diem.diffusion.samplers.base import Sampler

__all__ = ["DDIM"]


class DDIM(Sampler):
    r"""Steps without noise, as in the paper's evaluations.

    .. math:: x_s = x_t - (1 - \sigma_s / \sigma_t) (x_t - d(x_t)) .

    References:
        | Denoising Diffusion Implicit Models (Song et al., 2021)
        | https://arxiv.org/abs/2010.02502
    """

    name = "ddim"

    def step(self, denoise, x_t, t, s, noise):
        return x_t - (1 - s.sigma / t.sigma) * (x_t - denoise(x_t, t))
