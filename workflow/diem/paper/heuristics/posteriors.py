"""Samples of the true posterior of a noisy sample, and of its approximations by each covariance."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from diem.diffusion.covariances import COVARIANCES
from diem.paper.heuristics.mixture import ObservedMixture, normal

__all__ = ["EXACT", "log_likelihoods", "noisy_posteriors", "resample"]

EXACT = "exact"
"""The name of samples of the true :math:`p(x_t | y)`, beside those of the covariances."""


def log_likelihoods(
    problem: ObservedMixture, x_t: Tensor, sigma: float, covariances: Sequence[str]
) -> Tensor:
    r"""Returns :math:`\log q(y \mid x_t)` for several choices of :math:`V`.

    Arguments:
        problem: The prior and the observation.
        x_t: Noisy samples, with shape :math:`(N, D)`.
        sigma: The standard deviation of their noise.
        covariances: Names of :data:`diem.diffusion.covariances.COVARIANCES`.

    Returns:
        The logarithms, with shape ``(len(covariances), N)``.
    """
    matrix, variance_y = problem.matrix, problem.sigma_y**2 * torch.eye(len(problem.y)).to(x_t)
    covariance = problem.prior.covariance()
    chunks = []
    for samples in problem.prior.chunks(x_t):
        score, hessian = problem.prior.score_and_hessian(samples, sigma)
        mean = (samples + sigma**2 * score) @ matrix.T
        logarithms = []
        for name in covariances:
            v = COVARIANCES.parse(name).matrix(sigma**2, covariance, hessian)
            likelihood = MultivariateNormal(
                mean, variance_y + matrix @ v @ matrix.T, validate_args=False
            )
            logarithms.append(likelihood.log_prob(problem.y))
        chunks.append(torch.stack(logarithms))
    return torch.cat(chunks, dim=1)


def resample(
    x: Tensor, log_weights: Tensor, count: int, generator: np.random.Generator
) -> tuple[Tensor, float]:
    """Draws from samples in proportion to their weights, with replacement.

    Arguments:
        x: The samples, with shape ``(N, D)``.
        log_weights: The logarithms of their weights, up to a constant, with shape ``(N,)``.
        count: How many to draw.
        generator: The generator to draw with.

    Returns:
        The drawn samples, with shape ``(count, D)``, and the effective number of samples.
    """
    weights = log_weights.softmax(dim=0).cpu().numpy()
    index = torch.from_numpy(generator.choice(len(x), size=count, p=weights / weights.sum()))
    return x[index.to(x.device)], float(1 / np.square(weights).sum())


def noisy_posteriors(
    problem: ObservedMixture,
    sigma: float,
    prior_samples: int,
    counts: Mapping[str, int],
    generator: np.random.Generator,
) -> dict[str, tuple[Tensor, float]]:
    """Draws samples of the posterior and of its approximations, from the same of the prior.

    Arguments:
        problem: The prior and the observation.
        sigma: The standard deviation of the noise.
        prior_samples: How many samples of the prior all others are resampled from.
        counts: How many samples to draw by name: :data:`EXACT` for p(x_t | y), and the covariances
            for q(x_t | y).
        generator: The generator to draw with.

    Returns:
        The samples by name, and ``posterior`` for those of p(x | y) that :data:`EXACT` adds noise
        to; each with shape ``(count, D)`` and its effective number.
    """
    x = problem.prior.sample(prior_samples, generator)
    residual = (problem.y - x @ problem.matrix.T) / problem.sigma_y
    log_weights = -residual.square().sum(dim=1) / 2
    x_t = x + sigma * normal(x, generator)
    clean, effective = resample(x, log_weights, counts[EXACT], generator)
    noisy = clean + sigma * normal(clean, generator)
    drawn = {"posterior": (clean, effective), EXACT: (noisy, effective)}
    covariances = [name for name in counts if name != EXACT]
    likelihoods = log_likelihoods(problem, x_t, sigma, covariances)
    for name, log_likelihood in zip(covariances, likelihoods, strict=True):
        drawn[name] = resample(x_t, log_likelihood, counts[name], generator)
    return drawn
