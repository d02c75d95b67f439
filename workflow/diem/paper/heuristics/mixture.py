"""Priors for which everything is exact: mixtures of Gaussians, and an observation of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diem.data.sets import DATASETS
from diem.seeds import Stage, rng

__all__ = ["Mixture", "ObservedMixture", "double_precision", "normal", "random_curve"]

PAIRS = 2**20
"""How many pairs of a sample and a component are held in memory at once."""


def double_precision(device: torch.device) -> torch.device:
    """Returns a device, or the CPU in its place if it has no double precision."""
    return torch.device("cpu") if device.type == "mps" else device


def normal(like: Tensor, generator: np.random.Generator) -> Tensor:
    """Draws standard normal numbers on the CPU, so that they are the same on every device."""
    return torch.from_numpy(generator.standard_normal(like.shape)).to(like)


@dataclass(frozen=True)
class Mixture:
    r"""A mixture of Gaussians :math:`N(\mu_i, \tau^2 I)` of equal weights.

    Arguments:
        means: The means :math:`\mu_i`, float64, with shape :math:`(K, D)`.
        thickness: The standard deviation :math:`\tau`.
    """

    means: Tensor
    thickness: float

    def sample(self, count: int, generator: np.random.Generator) -> Tensor:
        """Draws samples, with shape ``(count, D)``."""
        index = torch.from_numpy(generator.integers(len(self.means), size=count))
        x = self.means[index.to(self.means.device)]
        return x + self.thickness * normal(x, generator)

    def chunks(self, x_t: Tensor) -> tuple[Tensor, ...]:
        """Splits samples, of which each is compared with every component, to bound the memory."""
        return x_t.split(max(PAIRS // len(self.means), 1))

    def covariance(self) -> Tensor:
        """Returns the covariance of ``x``, with shape :math:`(D, D)`."""
        within = self.thickness**2 * torch.eye(self.means.shape[1]).to(self.means)
        return within + torch.cov(self.means.T, correction=0)

    def score_and_hessian(self, x_t: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        r"""Returns the gradient and the Hessian of :math:`\log p(x_t)`.

        With the components' weights :math:`r_i(x_t)`, the mean :math:`m` and the covariance
        :math:`C` of the :math:`\mu_i` under them, and :math:`s^2 = \tau^2 + \sigma_t^2`, they are

        .. math:: \frac{m - x_t}{s^2} \qquad \text{and} \qquad \frac{C}{s^4} - \frac{I}{s^2} .

        Arguments:
            x_t: Noisy samples, with shape :math:`(N, D)`.
            sigma: The standard deviation :math:`\sigma_t` of their noise.

        Returns:
            The scores, with shape :math:`(N, D)`, and the Hessians, with shape :math:`(N, D, D)`.
        """
        size = self.means.shape[1]
        variance = self.thickness**2 + sigma**2
        squares = (self.means[:, :, None] * self.means[:, None, :]).flatten(1)
        moments = torch.cat([torch.ones_like(self.means[:, :1]), self.means, squares], dim=1)
        offset = self.means.square().sum(dim=1) / 2
        sums = []
        for samples in self.chunks(x_t):
            logits = (samples @ self.means.T - offset) / variance
            logits -= logits.amax(dim=1, keepdim=True)
            sums.append(logits.exp_() @ moments)
        total = torch.cat(sums)
        mean, square = (total[:, 1:] / total[:, :1]).split([size, size**2], dim=1)
        covariance = square.unflatten(1, (size, size)) - mean[:, :, None] * mean[:, None, :]
        identity = torch.eye(size).to(x_t)
        return (mean - x_t) / variance, covariance / variance**2 - identity / variance


class ObservedMixture(NamedTuple):
    r"""A prior and one observation :math:`y = A x + n`, :math:`n \sim N(0, \sigma_y^2 I)`.

    Attributes:
        prior: The prior.
        matrix: The matrix :math:`A`, with shape :math:`(M, D)`.
        y: The observation, with shape :math:`(M,)`.
        sigma_y: The standard deviation :math:`\sigma_y`.
    """

    prior: Mixture
    matrix: Tensor
    y: Tensor
    sigma_y: float

    def to(self, device: torch.device) -> "ObservedMixture":
        """Returns the same problem on a device."""
        prior = Mixture(self.prior.means.to(device), self.prior.thickness)
        return ObservedMixture(prior, self.matrix.to(device), self.y.to(device), self.sigma_y)


def random_curve(entry: Mapping[str, Any], seed: int, case: int) -> ObservedMixture:
    """Draws a curve, the components along it, and an observation of a sample by unit rows.

    Arguments:
        entry: The config's entry of the heuristics.
        seed: The config's seed.
        case: The number of the case, from 1; each is independent of the others.
    """
    generator = rng(seed, Stage.HEURISTICS, block=case)
    curve = {"name": "manifold", "train": entry["components"], "validation": 1, "test": 1}
    shape = {key: entry[key] for key in ("dimensions", "alpha", "epsilon")}
    means = DATASETS.parse({**curve, **shape}).load(int(generator.integers(2**63)))["train"].x
    prior = Mixture(torch.from_numpy(means).double(), entry["thickness"])
    matrix = torch.from_numpy(generator.standard_normal((entry["rows"], entry["dimensions"])))
    matrix = matrix / torch.linalg.vector_norm(matrix, dim=1, keepdim=True)
    y = matrix @ prior.sample(1, generator)[0]
    y += entry["sigma_y"] * normal(y, generator)
    return ObservedMixture(prior, matrix, y, entry["sigma_y"])
