r"""The heuristics for :math:`V` compared where everything is exact: a prior that is a mixture.

For a mixture of Gaussians, the score and the Hessian of :math:`\log p(x_t)` are known, hence also
:math:`\mathrm{E}[x \mid x_t]` and :math:`\mathrm{V}[x \mid x_t]`. What is left between the true
:math:`p(x_t \mid y)` and

.. math::
    q(x_t \mid y) \propto p(x_t) \, N(y \mid A \, \mathrm{E}[x \mid x_t], \Sigma_y + A V A^\top)

is the choice of :math:`V`, see :data:`diem.diffusion.covariances.COVARIANCES`. The noise is added,
:math:`x_t = x + \sigma_t z`.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024)
    | https://arxiv.org/abs/2405.13712
"""
