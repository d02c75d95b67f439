r"""The posterior denoiser: from ``E[x | x_t]`` to ``E[x | x_t, y]``.

With :math:`q(y \mid x_t) = N(y \mid A d(x_t), \Sigma_y + A V A^\top)` and :math:`V \approx V[x \mid
x_t]` taken as constant in :math:`x_t`,

.. math:: d(x_t \mid y) = d + \sigma_t^2 J^\top A^\top v, \qquad
    (\Sigma_y + A V A^\top) \, v = y - A d, \qquad J = \partial d / \partial x_t .

The choices of :math:`V` are the paper's comparison: see :data:`COVARIANCES`.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024)
    | https://arxiv.org/abs/2405.13712
"""

from collections.abc import Sequence

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.linalg.covariance import Covariance, IsotropicCovariance
from azula.noise import Schedule
from torch import Tensor

from diem.diffusion.gaussian import Gaussian
from diem.diffusion.solvers import column, conjugate_gradient, dot, gmres
from diem.networks.runtime import autocast
from diem.operators.base import Operator

__all__ = ["COVARIANCES", "SOLVERS", "PartsDenoiser", "PosteriorDenoiser"]

COVARIANCES = ("tweedie", "cov_x", "identity", "cov_t", "zeros")
"""The names of ``V``.

``tweedie`` is :math:`\\sigma_t^2 J` (MMPS), ``cov_x`` :math:`(\\Sigma_x^{-1} +
\\Sigma_t^{-1})^{-1}`, ``identity`` the same with :math:`\\Sigma_x = I` (as in PGDM), ``cov_t``
:math:`\\Sigma_t`, and ``zeros`` 0 (as in DPS).
"""


SOLVERS = {"cg": conjugate_gradient, "gmres": gmres}
"""The solvers of the linear system of ``v``, by name."""


class PosteriorDenoiser(Denoiser):
    r"""Creates the denoiser of ``x`` given ``x_t`` and ``y``.

    It is an azula denoiser, so that any sampler serves for the posterior too. It costs one forward
    pass and, for ``tweedie``, exactly ``iterations`` vector-Jacobian products; the other
    covariances need one product, whatever the number of iterations.

    The adjoint :math:`J^\top` stands for :math:`J` in ``V``, as it does in the authors' code: the
    two are equal for the exact denoiser, and nearly so for a trained network.

    Arguments:
        denoiser: The prior's denoiser. Its parameters should not require gradients.
        operator: The forward operators, one a sample.
        y: The observations, of shape ``(B, *observation)``.
        sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
        covariance: A name of :data:`COVARIANCES`.
        iterations: The number of the solver's iterations.
        gaussian: The prior's mean and covariance; only ``cov_x`` needs it.
        limit: If given, a solution ``v`` whose Mahalanobis residual :math:`\sqrt{b^\top S^{-1} b /
            m}` (``m`` observed values) exceeds this number is scaled down to it: a residual that
            the model cannot explain is not followed all the way. A trade of data fit for
            plausibility that is not in the paper.
        solver: ``cg`` (conjugate gradients, as in the paper's E-step) or ``gmres``, which also
            suits a network whose Jacobian is far from symmetric and positive.
        precision: The precision of the network's products, see :data:`diem.networks.runtime.PRECISIONS`.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        y: Tensor,
        sigma_y: float | Tensor,
        covariance: str = "tweedie",
        iterations: int = 1,
        gaussian: Gaussian | None = None,
        limit: float | None = None,
        solver: str = "cg",
        precision: str = "float32",
    ) -> None:
        super().__init__()
        if covariance not in COVARIANCES:
            raise ValueError(f"covariance must be one of {COVARIANCES}, not {covariance!r}.")
        if solver not in SOLVERS:
            raise ValueError(f"solver must be one of {tuple(SOLVERS)}, not {solver!r}.")
        if covariance == "cov_x" and gaussian is None:
            raise ValueError("The covariance 'cov_x' needs the prior's mean and covariance.")
        self.denoiser = denoiser
        self.operator = operator
        self.y = y
        self.var_y = torch.as_tensor(sigma_y, dtype=y.dtype, device=y.device) ** 2
        self.covariance = covariance
        self.iterations = iterations
        self.solve = SOLVERS[solver]
        self.gaussian = gaussian
        self.precision = precision
        self.limit = limit
        if limit is not None:
            self.count = operator.observed().flatten(1).sum(dim=1).clamp(min=1).to(y)

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
        # d log p(x_t) is scaled by alpha in a schedule that shrinks x; here alpha is 1 for VE.
        gamma_t = sigma_t**2 / alpha_t

        with torch.enable_grad(), autocast(self.precision, x_t.device):
            x_t = x_t.detach().requires_grad_()
            mean = self.denoiser(x_t, t, **kwargs).mean

        def jacobian(u: Tensor) -> Tensor:
            return torch.autograd.grad(mean, x_t, u, retain_graph=True)[0]

        b = self.y - self.operator.forward(mean.detach())

        if self.covariance == "tweedie":

            def product(p: Tensor) -> tuple[Tensor, Tensor]:
                g = jacobian(self.operator.adjoint(p))
                return self.var_y * p + gamma_t * self.operator.forward(g), g

            v, g = self.solve(product, b, self.iterations)
        else:
            variance = self._variance(alpha_t, sigma_t)

            def product(p: Tensor) -> tuple[Tensor, Tensor]:
                vp = variance(self.operator.adjoint(p))
                return self.var_y * p + self.operator.forward(vp), p

            v, _ = self.solve(product, b, self.iterations)
            g = jacobian(self.operator.adjoint(v))

        if self.limit is not None:
            distance = torch.sqrt(dot(b, v).abs() / self.count)
            scale = self.limit / distance.clamp(min=self.limit)
            g = column(scale, g) * g

        return DiracPosterior(mean=mean.detach() + gamma_t * g)

    def _variance(self, alpha_t: Tensor, sigma_t: Tensor) -> Covariance:
        """Returns the ``V`` of the heuristics that do not need the network."""
        var_t = (sigma_t / alpha_t) ** 2
        if self.covariance == "cov_x":
            return self.gaussian.denoising_covariance(var_t)
        if self.covariance == "identity":
            return IsotropicCovariance(var_t / (1 + var_t))
        if self.covariance == "cov_t":
            return IsotropicCovariance(var_t)
        return IsotropicCovariance(torch.zeros_like(var_t))


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
