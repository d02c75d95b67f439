"""The output of a network whose denoiser is that of a Gaussian."""

import torch
from torch import Tensor, nn

__all__ = ["GaussianOutput"]


class GaussianOutput(nn.Module):
    r"""What a network has to return for its denoiser to be the exact one of a Gaussian.

    Under the preconditioning of EDM with unit variance of the data, the input is :math:`x_t /
    \sqrt{1 + \sigma^2}`, and the output of the exact denoiser of :math:`N(\mu, \Sigma)` is

    .. math:: \frac{\sigma}{\sqrt{1 + \sigma^2}}
        \left[\mu + (\Sigma - I) (\Sigma + \sigma^2 I)^{-1} (x_t - \mu)\right]

    It is no weight: an optimizer leaves it, and files keep it. It begins as that of ``N(0, I)``,
    which is zero.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor

    def __init__(self, size: int) -> None:
        """Builds the output of ``N(0, I)``.

        Arguments:
            size: The number of values of one sample.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("values", torch.ones(size))
        self.register_buffer("vectors", torch.eye(size))

    def begin_with(self, mean: Tensor, covariance: Tensor) -> None:
        """Takes the moments of a Gaussian, of shapes ``(size,)`` and ``(size, size)``."""
        values, vectors = torch.linalg.eigh(covariance)
        moments = {"mean": mean, "values": values.clamp(min=0), "vectors": vectors}
        for name, value in moments.items():
            getattr(self, name).copy_(value)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns the output, of the shape of ``x``.

        Arguments:
            x: The input, of shape ``(B, size)``.
            t: The logarithm of the noise level, of shape ``(B,)``, ``(1,)`` or ``()``.
        """
        var_t = torch.exp(2 * t).reshape(-1, 1)
        # Half precision would round directions of small variance to noise.
        with torch.autocast(x.device.type, enabled=False):
            z = (x * torch.sqrt(1 + var_t) - self.mean) @ self.vectors
            moved = z * ((self.values - 1) / (self.values + var_t))
            return torch.sqrt(var_t / (1 + var_t)) * (self.mean + moved @ self.vectors.mT)
