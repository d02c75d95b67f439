r"""The posterior denoiser: from ``E[x | x_t]`` to ``E[x | x_t, y]``.

With :math:`q(y \mid x_t) = N(y \mid A d(x_t), \Sigma_y + A V A^\top)` and :math:`V \approx V[x \mid
x_t]` taken as constant in :math:`x_t`,

.. math:: d(x_t \mid y) = d + \sigma_t^2 J^\top A^\top v, \qquad
    (\Sigma_y + A V A^\top) \, v = y - A d, \qquad J = \partial d / \partial x_t .

The choices of :math:`V` are the paper's comparison: see :mod:`diem.diffusion.covariances`.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024)
    | https://arxiv.org/abs/2405.13712
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor

from diem.diffusion.covariances import Covariance, Denoising, System
from diem.diffusion.covariances.tweedie import Tweedie
from diem.diffusion.solvers import column, conjugate_gradient, dot
from diem.networks.runtime import autocast
from diem.operators.base import Operator

__all__ = ["Guidance", "PartsDenoiser", "PosteriorDenoiser"]

Solve = Callable[..., tuple[Tensor, Tensor]]
"""What solves a system, given its product and right-hand side: the solution and its by-product."""

PROBES = 32
"""Random signs by which the rows of an operator's matrix are estimated, which is not held."""

UNEVEN = 0.5
"""Rows differ in size if the logarithms of their powers spread by more: those of random signs do by
0.25 where all are alike."""


@dataclass(frozen=True)
class Guidance:
    r"""How an observation guides a denoiser.

    Arguments:
        covariance: The choice of :math:`V`.
        iterations: The number of the solver's iterations.
        limit: If given, a solution ``v`` whose Mahalanobis residual :math:`\sqrt{b^\top S^{-1} b /
            m}` (``m`` observed values) exceeds this number is scaled down to it: a residual that
            the model cannot explain is not followed all the way. A trade of data fit for
            plausibility that is not in the paper.
        solver: Conjugate gradients, as in the paper's E-step, or another of
            :mod:`diem.diffusion.solvers`.
    """

    covariance: Covariance = field(default_factory=Tweedie)
    iterations: int = 1
    limit: float | None = None
    solver: Solve = conjugate_gradient


class PosteriorDenoiser(Denoiser):
    r"""Creates the denoiser of ``x`` given ``x_t`` and ``y``.

    It is an azula denoiser, so that any sampler serves for the posterior too. It costs one forward
    pass and the vector-Jacobian products that the covariance declares.

    Arguments:
        denoiser: The prior's denoiser. Its parameters should not require gradients.
        operator: The forward operators, one a sample.
        y: The observations, of shape ``(B, *observation)``.
        sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
        guidance: How the observation guides.
        gaussian: The prior's mean and covariance, for a covariance that needs them.
        precision: The precision of the network's products, see
            :data:`diem.networks.runtime.PRECISIONS`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        y: Tensor,
        sigma_y: float | Tensor,
        guidance: Guidance | None = None,
        gaussian: Denoising | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        guidance = guidance or Guidance()
        covariance = guidance.covariance
        if covariance.needs_gaussian and gaussian is None:
            raise ValueError(f"{covariance.name!r} needs the prior's mean and covariance.")
        self.denoiser = denoiser
        self.operator = operator
        self.y = y
        self.var_y = torch.as_tensor(sigma_y, dtype=y.dtype, device=y.device) ** 2
        self.guidance = guidance
        self.gaussian = gaussian
        self.precision = precision
        observed = operator.observed().expand_as(y).flatten(1)
        self.count = observed.sum(dim=1).clamp(min=1).to(y)
        self.scales, noises = False, self.var_y.numel() > 1
        if noises or not operator.elementwise:
            self.row_power = _row_power(operator, y)
            self.unequal = _uneven(self.row_power.flatten(1), observed)
            if noises:
                self.unequal |= _unequal(self.var_y.expand_as(y).flatten(1), observed)
            self.scales = bool(self.unequal.any())

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        """Returns the posterior's mean ``E[x | x_t, y]``.

        Arguments:
            x_t: A noisy tensor, of shape ``(B, *event)``.
            t: The time, of shape ``()``.
            kwargs: Passed to the prior's denoiser.
        """
        alpha_t, sigma_t = self.schedule(t)
        with torch.enable_grad(), autocast(self.precision, x_t.device):
            x_t = x_t.detach().requires_grad_()
            mean = self.denoiser(x_t, t, **kwargs).mean

        def jacobian(u: Tensor) -> Tensor:
            return torch.autograd.grad(mean, x_t, u, retain_graph=True)[0]

        b = self.y - self.operator.forward(mean.detach())

        guidance = self.guidance
        iterations = guidance.covariance.iterations(guidance.iterations, self.operator)
        solve: Solve = partial(guidance.solver, iterations=iterations)
        if self.scales:
            solve = _scaled(solve, self._scale((sigma_t / alpha_t) ** 2))
        system = System(
            self.operator, self.var_y, b, jacobian, alpha_t, sigma_t, self.gaussian, solve
        )
        v, g = guidance.covariance.solve(system)

        if guidance.limit is not None:
            distance = torch.sqrt(dot(b, v).abs() / self.count)
            scale = guidance.limit / distance.clamp(min=guidance.limit)
            g = column(scale, g) * g

        # d log p(x_t) is scaled by alpha in a schedule that shrinks x; here alpha is 1 for VE.
        return DiracPosterior(mean=mean.detach() + sigma_t**2 / alpha_t * g)

    def _scale(self, var_t: Tensor) -> Tensor:
        r"""Returns about the inverse square root of the diagonal of :math:`\Sigma_y + A V A^\top`.

        A few iterations do not solve a system in which some values have far less noise than others,
        or rows of :math:`A` far larger ones: their one step length is that of the largest. What is
        scaled so has a diagonal of about one. Samples whose values are alike in both are left as
        they are.

        Arguments:
            var_t: The variance of the noise, of shape ``()``, where ``x`` has the scale 1.
        """
        if self.gaussian is None:
            variance = var_t / (1 + var_t)
        else:
            variance = self.gaussian.denoising_error(var_t).mean_variance
        scale = torch.rsqrt(self.var_y + variance * self.row_power)
        return torch.where(column(self.unequal, self.y), scale, 1.0)


def _unequal(var_y: Tensor, observed: Tensor) -> Tensor:
    """Returns of which samples the observed values differ in their noise, of shape ``(B,)``."""
    most = torch.where(observed, var_y, -torch.inf).amax(dim=1)
    return most > torch.where(observed, var_y, torch.inf).amin(dim=1)


def _row_power(operator: Operator, y: Tensor) -> Tensor:
    """Returns about the sum of squares of each row of the operators' matrices, of ``y``'s shape."""
    if operator.elementwise:
        return torch.ones_like(y)
    shape, power = operator.event_shape, torch.zeros_like(y)
    size = math.prod(shape)
    signs = torch.randint(2, (PROBES, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    # One after another the columns of a small matrix tell the rows exactly.
    few = size <= PROBES
    for probe in torch.eye(size).reshape(-1, *shape) if few else signs / math.sqrt(PROBES):
        power += operator.forward(probe.to(y).expand(len(y), *shape)).square()
    return power


def _uneven(power: Tensor, observed: Tensor) -> Tensor:
    """Returns in which samples the observed rows differ in size, of shape ``(B,)``."""
    # A row of zeros, as that of the imaginary part at k = 0, has some rounding.
    seen = observed & (power > 1e-12 * power.amax(dim=1, keepdim=True))
    logs = torch.where(seen, power.clamp(min=torch.finfo(power.dtype).tiny).log(), 0.0)
    count = seen.sum(dim=1, keepdim=True).clamp(min=1)
    far = torch.where(seen, logs - logs.sum(dim=1, keepdim=True) / count, 0.0)
    return far.square().sum(dim=1) > UNEVEN**2 * count[:, 0]


def _scaled(solve: Solve, scale: Tensor) -> Solve:
    """Returns a solver of the system whose rows and columns are scaled, in the system's terms."""

    def solved(
        product: Callable[[Tensor], tuple[Tensor, Tensor]], b: Tensor
    ) -> tuple[Tensor, Tensor]:
        def inner(u: Tensor) -> tuple[Tensor, Tensor]:
            sp, extra = product(scale * u)
            return scale * sp, extra

        u, extra = solve(inner, scale * b)
        return scale * u, extra

    return solved


class PartsDenoiser(Denoiser):
    """Creates a denoiser that evaluates the parts of a batch one after another.

    Only one part's graph is in memory at a time. Since no sample depends on its neighbours, the
    result is that of the whole batch but for rounding.

    Arguments:
        parts: The denoisers of the parts, which share a schedule.
        size: The number of samples of each part but the last.
    """

    def __init__(self, parts: Sequence[Denoiser], size: int) -> None:
        super().__init__()
        self.parts = parts
        self.size = size

    @property
    def schedule(self) -> Schedule:
        return self.parts[0].schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        """Returns the means of all parts.

        Arguments:
            x_t: A noisy tensor, of shape ``(B, *event)``.
            t: The time, of shape ``()`` or ``(1,)``.
            kwargs: Passed to the parts' denoisers.
        """
        pairs = zip(self.parts, x_t.split(self.size), strict=True)
        return DiracPosterior(mean=torch.cat([part(x, t, **kwargs).mean for part, x in pairs]))
