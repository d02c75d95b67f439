r"""The Gaussian prior: PPCA, exact posteriors, and its fit to observations alone.

For :math:`x \sim N(\mu_x, \Sigma_x)` and :math:`y = A x + n` everything is known in closed form, so
that no diffusion sampling is needed here. The covariance is that of probabilistic PCA,
:math:`\Sigma_x = \lambda I + V V^\top` with orthogonal columns :math:`V`.

References:
    | Probabilistic Principal Component Analysis (Tipping and Bishop, 1999)
    | https://doi.org/10.1111/1467-9868.00196
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from azula.denoise import GaussianDenoiser
from azula.linalg.covariance import DPLRCovariance
from azula.noise import Schedule
from torch import Tensor

from diem.diffusion.solvers import (
    conjugate_gradient,
    dot,
    most_iterations,
    whitened_posterior,
)
from diem.errors import DiemError
from diem.jobs.resume import Keep, no_cache
from diem.operators.base import Operator

__all__ = [
    "Gaussian",
    "fit_to_observations",
    "fit_to_samples",
    "moments",
    "noise_of",
    "ppca",
]

logger = logging.getLogger("diem")

DENSE_SIZE = 256
"""Up to this event size, the fit to observations materialises ``A`` and takes exact moments."""

COVARIANCE_SIZE = 1024
"""Up to this event size, the fit to samples decomposes their whole covariance."""

SOLVED = 1e-4
"""A posterior is solved once the solver's residual is so many noise standard deviations (RMS)."""

ROUGHLY = 1e-2
"""The same of a rough draw."""

SINGLE = 3e6
"""A system whose eigenvalues differ by less is solved so far in single precision."""

FEW_FACTORS = 128
"""Up to this rank, the systems of masks are factorized, which is quicker than to iterate."""

SOLVED_SIZE = 1024
"""Up to this size, what conjugate gradients do not solve is solved by a factorization."""

DENSE_CHUNK = 2**23
"""Observations whose moments are in closed form are taken so many entries of matrices at a time."""

CHUNK = 2**22
"""Observations are sampled so many values at a time, which bounds the memory."""


@dataclass(frozen=True)
class Gaussian:
    r"""A Gaussian :math:`N(\mu, \lambda I + V V^\top)`, where ``V`` has orthogonal columns.

    Arguments:
        mean: The mean, of the event's shape.
        noise: The isotropic variance :math:`\lambda`, a scalar.
        factors: The factors ``V``, of shape ``(*event, rank)``.
    """

    mean: Tensor
    noise: Tensor
    factors: Tensor

    @classmethod
    def standard(cls, event_shape: Sequence[int]) -> Self:
        """Returns ``N(0, I)``."""
        return cls(torch.zeros(*event_shape), torch.ones(()), torch.zeros(*event_shape, 0))

    @property
    def covariance(self) -> DPLRCovariance:
        """The covariance, as azula's."""
        return DPLRCovariance(self.noise.expand(self.mean.shape), self.factors)

    @property
    def mean_variance(self) -> Tensor:
        """The mean of the covariance's diagonal, of shape ``()``."""
        return self.noise + self.factors.square().sum() / self.mean.numel()

    def shrunk(self, weight: float) -> Self:
        """Returns it with so large a part of its covariance the identity times its mean variance.

        Arguments:
            weight: The part, from 0, which leaves it as it is, to 1.
        """
        noise = (1 - weight) * self.noise + weight * self.mean_variance
        return type(self)(self.mean, noise, math.sqrt(1 - weight) * self.factors)

    def dense(self) -> Tensor:
        """Returns the covariance of the flattened event, of shape ``(size, size)``."""
        v = self.factors.flatten(0, -2)
        return self.noise * torch.eye(len(v), dtype=v.dtype, device=v.device) + v @ v.T

    def root(self) -> Tensor:
        """Returns the symmetric square root of :meth:`dense`."""
        v, low = self.factors.flatten(0, -2), torch.sqrt(self.noise)
        power = v.square().sum(dim=0)
        weights = (torch.sqrt(self.noise + power) - low) / power.clamp(
            min=torch.finfo(v.dtype).tiny
        )
        return low * torch.eye(len(v), dtype=v.dtype, device=v.device) + (v * weights) @ v.T

    def denoiser(self, schedule: Schedule) -> GaussianDenoiser:
        """Returns the exact denoiser of this prior, as azula's."""
        return GaussianDenoiser(self.mean, self.covariance, schedule)

    def denoising_covariance(self, var_t: Tensor) -> DPLRCovariance:
        r"""Returns :math:`V[x \mid x_t] = (\Sigma_x^{-1} + \sigma_t^{-2} I)^{-1}`.

        Arguments:
            var_t: The variance of the noise, of shape ``()``.
        """
        return self.denoising_error(var_t).covariance

    def denoising_error(self, var_t: Tensor) -> Self:
        r"""Returns :math:`N(0, V[x \mid x_t])`, the law of :math:`x - E[x \mid x_t]`.

        It is written in the eigenvalues of the covariance: the two inverses of the formula would
        cancel digits where they differ much.

        Arguments:
            var_t: The variance of the noise, of shape ``()``.
        """
        power = self.factors.square().flatten(0, -2).sum(dim=0)
        noise = self.noise * var_t / (self.noise + var_t)
        # The eigenvalue l turns into l v / (l + v), of which the isotropic part holds `noise`.
        gain = var_t**2 / ((self.noise + power + var_t) * (self.noise + var_t))
        factors = self.factors * torch.sqrt(gain)
        return type(self)(torch.zeros_like(self.mean), noise, factors)

    def to(self, *args, **kwargs) -> Self:
        """Returns the same Gaussian on another device or of another dtype."""
        return type(self)(*(v.to(*args, **kwargs) for v in (self.mean, self.noise, self.factors)))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws samples, of shape ``(count, *event)``."""
        options: dict[str, Any] = {
            "generator": generator,
            "device": self.mean.device,
            "dtype": self.mean.dtype,
        }
        white = torch.randn(count, *self.mean.shape, **options)
        latent = torch.randn(count, self.factors.shape[-1], **options)
        x = torch.sqrt(self.noise) * white
        return self.mean + x + torch.einsum("...r,nr->n...", self.factors, latent)

    def sample_posterior(
        self,
        operator: Operator,
        y: Tensor,
        sigma_y: float | Tensor,
        generator: torch.Generator,
        rough: bool = False,
    ) -> Tensor:
        r"""Draws exactly from ``p(x | y)``, by Matheron's rule.

        A joint draw ``(x, y')`` of the prior and its observation is moved by :math:`\Sigma_x
        A^\top (A \Sigma_x A^\top + \Sigma_y)^{-1} (y - y')`.

        Arguments:
            operator: The forward operators, one an observation.
            y: The observations, of shape ``(B, *observation)``.
            sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
            generator: The random stream.
            rough: Whether a hundredth of the noise (RMS over all places of ``y``) is exact enough,
                as where draws are added to what is less exact. Single precision serves then
                wherever it can, but for what is factorized.

        Returns:
            The samples, of shape ``(B, *event)``.

        References:
            | Efficiently Sampling Functions from Gaussian Process Posteriors (Wilson et al., 2020)
            | https://arxiv.org/abs/2002.09309
        """
        x = self.sample(len(y), generator)
        noise = torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)
        return self._moved(x, operator, y, sigma_y, noise, rough)

    def posterior_mean(self, operator: Operator, y: Tensor, sigma_y: float | Tensor) -> Tensor:
        """Returns ``E[x | y]``, of shape ``(B, *event)``; the arguments as above."""
        mean = self.mean.expand(len(y), *self.mean.shape)
        return self._moved(mean, operator, y, sigma_y, torch.zeros_like(y))

    def _moved(
        self,
        x: Tensor,
        operator: Operator,
        y: Tensor,
        sigma_y: float | Tensor,
        noise: Tensor,
        rough: bool = False,
    ) -> Tensor:
        r"""Returns :math:`x` moved by the gain of what it leaves of the observation.

        The system is solved in units of the noise, :math:`b = (y - A x) / \sigma_y - n`, so that
        the solver can stop by how small its residual is against the noise: what it leaves is
        added to the residual of the sample, and moves :math:`x` by at most half of it in prior
        standard deviations. Where the noise is small against the data the system is
        ill-conditioned, hence double precision.
        """
        least = float(torch.as_tensor(sigma_y).min())
        single = rough and self._largest() < SINGLE * least**2 and not self._factorizes(operator)
        wide, dtype = (operator, x.dtype) if single else _double_of(operator)
        sigma = torch.as_tensor(sigma_y, dtype=dtype, device=y.device)
        gaussian, start = self.to(dtype), x.to(dtype)
        b = (y.to(dtype) - wide.forward(start)) / sigma - noise.to(dtype)
        solved = ROUGHLY if rough else SOLVED
        gain = gaussian._solved(wide, b, sigma.expand_as(b), solved)
        return (start + gain).to(x.dtype)

    def _largest(self) -> float:
        """Returns the largest eigenvalue of the covariance."""
        power = self.factors.square().flatten(0, -2).sum(dim=0)
        return float(self.noise + (power.max() if len(power) else 0.0))

    def _factorizes(self, operator: Operator) -> bool:
        return operator.elementwise and self.factors.shape[-1] <= FEW_FACTORS

    def _solved(self, operator: Operator, b: Tensor, sigma: Tensor, solved: float) -> Tensor:
        r"""Returns the gain :math:`\Sigma_x A^\top (A \Sigma_x A^\top + I)^{-1} b`.

        Here :math:`A` is the operator divided by :math:`\sigma_y`.
        """
        if self._factorizes(operator) and b.dtype == torch.float64:  # single is too coarse for it
            parts = torch.arange(len(b)).split(max(1, CHUNK // max(1, self.factors.numel())))
            found = [self._solved_in_factors(operator[i], b[i], sigma[i]) for i in parts]
            gains = [gain for gain in found if gain is not None]
            if len(gains) == len(parts):
                return torch.cat(gains)
        covariance = self.covariance

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            g = covariance(operator.adjoint(p / sigma))
            return p + operator.forward(g) / sigma, g

        def precondition(r: Tensor) -> Tensor:
            return sigma * operator.precondition(sigma * r, self.noise, sigma**2)

        size = min(math.prod(b.shape[1:]), self.mean.numel())
        norm = solved * math.sqrt(math.prod(b.shape[1:]))
        v, gain = conjugate_gradient(
            product, b, most_iterations(b, self.mean.numel()), 0.0, norm, precondition
        )
        rest = b - product(v)[0]
        # What is not a number is not solved either.
        far = (~(dot(rest, rest) <= (10 * norm) ** 2)).nonzero()[:, 0]
        if not len(far):
            return gain
        if size > SOLVED_SIZE:
            logger.warning(
                "The posterior of %d of %d observations under the Gaussian prior is solved to %.2g"
                " noise standard deviations only: the noise is too small for this operator.",
                *(len(far), len(b), rest.flatten(1).square().mean(dim=1).max().sqrt()),
            )
            return gain
        largest = math.prod(b.shape[1:]) * self.mean.numel()
        for rows in far.split(max(1, CHUNK // largest)):
            gain[rows] = self._solved_densely(operator[rows], b[rows], sigma[rows])
        return gain

    def _solved_in_factors(self, operator: Operator, b: Tensor, sigma: Tensor) -> Tensor | None:
        r"""Returns the same for masks, whose systems have the rank's size by Woodbury's identity.

        Or nothing, where the noise is too small for it.

        With :math:`D = I + \lambda A^2`, and :math:`u = V (I + V^\top A D^{-1} A V)^{-1} V^\top A
        D^{-1} b`, the gain is :math:`\lambda A D^{-1} (b - A u) + u`.
        """
        a, flat = (operator.observed() / sigma).flatten(1), b.flatten(1)
        d, factors = 1 + self.noise * a**2, self.factors.flatten(0, -2)
        # Draws of one observation have the same mask and noise.
        weights, which = torch.unique_consecutive(a**2 / d, dim=0, return_inverse=True)
        system = (factors.T * weights[:, None]) @ factors
        system.diagonal(dim1=1, dim2=2).add_(1.0)
        root, wrong = torch.linalg.cholesky_ex(system)
        if wrong.any():
            return None
        seen = (a * flat / d) @ factors
        u = torch.cholesky_solve(seen[..., None], root[which])[..., 0] @ factors.T
        return (self.noise * a * (flat - a * u) / d + u).reshape(-1, *self.mean.shape)

    def _solved_densely(self, operator: Operator, b: Tensor, sigma: Tensor) -> Tensor:
        """Returns the same by a factorization, where conjugate gradients take too long."""
        dense = operator.dense(b.dtype) / sigma.flatten(1)[..., None]
        root = self.root()
        gain, _ = whitened_posterior(dense @ root, b.flatten(1)[..., None])
        return (gain[..., 0] @ root).reshape(-1, *self.mean.shape)


def _double_of(operator: Operator) -> tuple[Operator, torch.dtype]:
    """Returns the operator for double precision, or itself with the precision that it has.

    An operator of a user's own can hold constants of single precision, which cannot be applied to
    double precision; and some devices have none.
    """
    zero = torch.zeros(1, *operator.event_shape, device=operator.device)
    try:
        wide = operator.double()
        y = wide[:1].forward(zero.double())
        if y.dtype == wide[:1].adjoint(y).dtype == torch.float64:
            return wide, torch.float64
    except (RuntimeError, TypeError):
        pass
    return operator, zero.dtype


def ppca(mean: Tensor, covariance: Tensor, rank: int) -> Gaussian:
    """Fits a probabilistic PCA to a mean and covariance, in closed form.

    Arguments:
        mean: The mean, of the event's shape.
        covariance: The covariance, of shape ``(size, size)``.
        rank: The number of factors, less than the event's size.
    """
    size = len(covariance)
    if not 0 <= rank < size:
        raise DiemError(f"gaussian.rank is {rank}, and must be less than the data's size {size}.")
    values, vectors = torch.linalg.eigh(covariance)
    noise = values[: size - rank].mean().clamp(min=torch.finfo(values.dtype).eps)
    scale = torch.sqrt((values[size - rank :] - noise).clamp(min=0))
    factors = (vectors[:, size - rank :] * scale).reshape(*mean.shape, rank)
    return Gaussian(mean, noise, factors)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean and the maximum-likelihood covariance ``(size, size)`` of samples."""
    mean = x.mean(dim=0)
    centred = (x - mean).flatten(1)
    return mean, centred.T @ centred / len(x)


def fit_to_samples(x: Tensor, rank: int) -> Gaussian:
    r"""Fits a probabilistic PCA to samples.

    Only the leading eigenvectors and the trace of the covariance are needed. In events that are
    too large for a covariance matrix, the former come from a randomized subspace iteration.

    Arguments:
        x: The samples, of shape ``(N, *event)``.
        rank: The number of factors, less than the event's size; of large events also less than the
            number of samples.

    References:
        | Finding Structure with Randomness (Halko, Martinsson and Tropp, 2011)
        | https://arxiv.org/abs/0909.4061
    """
    size = math.prod(x.shape[1:])
    if size <= COVARIANCE_SIZE:
        return ppca(*moments(x.double()), rank).to(x)
    if not 0 <= rank < min(len(x), size):
        raise DiemError(
            f"gaussian.rank is {rank}, and must be less than the number of samples, {len(x)}, and"
            f" than the size of x, {size}."
        )
    mean = x.mean(dim=0)
    centred = (x - mean).flatten(1)
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(0)  # of the method's start, on which the converged result hardly depends
        _, singular, vectors = torch.svd_lowrank(centred, min(rank + 16, len(x)), niter=4)
    values = singular[:rank].square() / len(x)
    rest = centred.square().sum() / len(x) - values.sum()
    noise = (rest / (size - rank)).clamp(min=torch.finfo(x.dtype).eps)
    factors = vectors[:, :rank] * torch.sqrt((values - noise).clamp(min=0))
    return Gaussian(mean, noise, factors.reshape(*mean.shape, rank))


def fit_to_observations(
    operator: Operator,
    y: Tensor,
    sigma_y: float | Tensor,
    rank: int,
    iterations: int,
    generator: torch.Generator,
    keep: Keep = no_cache,
    shrinkage: float = 0.0,
) -> Gaussian:
    r"""Fits a Gaussian prior to observations alone, by expectation maximization from ``N(0, I)``.

    Each iteration takes the first two moments of the posteriors :math:`p(x \mid y_i)`, averaged
    over the observations, and fits a PPCA to them, which cannot lower the observations' marginal
    likelihood, unless the covariance is shrunk. Small events have their moments in closed form; in
    larger ones they are those of one exact draw an observation.

    Arguments:
        operator: The forward operators, one an observation.
        y: The observations, of shape ``(N, *observation)``.
        sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
        rank: The number of factors of the covariance.
        iterations: The number of iterations.
        generator: The random stream of the draws.
        keep: Makes the pieces of the work that were not kept, see :mod:`diem.jobs.resume`: after
            each iteration, the prior and the state of the stream.
        shrinkage: As so many more observations, whose covariance is the identity times the mean
            variance, shrink the covariance.

    Raises:
        DiemError: If the Gaussian is not finite.
    """
    gaussian = Gaussian.standard(operator.event_shape).to(y)
    size = math.prod(operator.event_shape)

    def improve(gaussian: Gaussian) -> dict[str, np.ndarray]:
        if size <= DENSE_SIZE:
            mean, covariance = _dense_moments(gaussian.to(torch.float64), operator, y, sigma_y)
            _check_finite(covariance)
            gaussian = ppca(mean, covariance, rank)
        else:
            draws = torch.cat(
                [
                    gaussian.sample_posterior(
                        operator[rows], y[rows], noise_of(sigma_y, y, rows), generator
                    )
                    for rows in torch.arange(len(y)).split(max(1, CHUNK // size))
                ]
            )
            _check_finite(draws)
            gaussian = fit_to_samples(draws, rank)
        gaussian = gaussian.shrunk(shrinkage / (len(y) + shrinkage))
        after = {**vars(gaussian.to(y)), "stream": generator.get_state()}
        return {name: value.cpu().contiguous().numpy() for name, value in after.items()}

    for i in range(iterations):
        after = {
            k: torch.from_numpy(v) for k, v in keep(str(i), partial(improve, gaussian)).items()
        }
        generator.set_state(after.pop("stream"))
        gaussian = Gaussian(**after).to(y)
    return gaussian


def _check_finite(values: Tensor) -> None:
    if not values.isfinite().all():
        raise DiemError(
            "The Gaussian prior is not finite: sigma_y is too small for this operator, or the scale"
            " of x is far from one (data.scale)."
        )


def noise_of(sigma_y: float | Tensor, y: Tensor, rows: Tensor | slice) -> float | Tensor:
    """Returns the noise of some observations, where each of ``y`` may have its own.

    Arguments:
        sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
        y: All the observations, of shape ``(B, *observation)``.
        rows: Which of them.
    """
    if isinstance(sigma_y, Tensor) and sigma_y.ndim == y.ndim and len(sigma_y) > 1:
        return sigma_y[rows]
    return sigma_y


def _dense_moments(
    gaussian: Gaussian, operator: Operator, y: Tensor, sigma_y: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the mean and covariance of ``x`` under the average of all posteriors, exactly."""
    prior, root, centre = gaussian.dense(), gaussian.root(), gaussian.mean.flatten()
    gained, centres = torch.zeros_like(prior), []
    largest = len(prior) * max(len(prior), math.prod(y.shape[1:]))
    for rows in torch.arange(len(y)).split(max(1, DENSE_CHUNK // largest)):
        sigma = torch.as_tensor(noise_of(sigma_y, y, rows), dtype=prior.dtype, device=y.device)
        sigma = sigma.expand(y[rows].shape).flatten(1)[..., None]
        dense = operator[rows].dense().double() / sigma  # (B, m, size)
        residual = y[rows].double().flatten(1)[..., None] / sigma - dense @ centre[:, None]
        gain, less = whitened_posterior(dense @ root, residual)
        centres.append(centre + gain[..., 0] @ root)
        gained += less.sum(dim=0)
    mean, spread = moments(torch.cat(centres))
    covariance = prior - root @ gained @ root / len(y) + spread
    return mean.reshape(gaussian.mean.shape), (covariance + covariance.T) / 2
