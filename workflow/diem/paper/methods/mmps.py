"""Moment matching posterior sampling, this project's own."""

from typing import TYPE_CHECKING, Any, Literal

from diem.components import Count, option
from diem.paper.methods.base import Method, Problem

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.sample import Sampler


class MMPS(Method):
    """Moment matching posterior sampling, by the posterior denoiser of the E-step.

    References:
        | Learning Diffusion Priors from Observations by Expectation Maximization
          (Rozet et al., 2024)
        | https://arxiv.org/abs/2405.13712
    """

    name = "mmps"
    title = "MMPS"
    ours = True

    iterations: Count = option(
        1, "solver iterations, each of one vector-Jacobian product", paper="1, 3 and 5"
    )
    solver: Literal["gmres", "cg"] = option(
        "gmres",
        "`gmres`, or `cg` as in the E-step. The Jacobian of a network is not symmetric and positive"
        " as that of a denoiser should be: after short training `cg` gets worse with each"
        " iteration, and `gmres` does not",
        paper="`gmres` in the authors' benchmark",
    )

    @property
    def iterations_shown(self) -> str:
        """The iterations: they are the methods of the publication."""
        return str(self.iterations)

    def sampler(self, denoiser: "Denoiser", problem: Problem, **grid: Any) -> "Sampler":
        """Builds DDIM on the posterior denoiser."""
        from azula.sample import DDIMSampler

        from diem.diffusion.posterior import Guidance, PosteriorDenoiser
        from diem.diffusion.solvers import SOLVERS

        guidance = Guidance(iterations=self.iterations, solver=SOLVERS[self.solver])
        return DDIMSampler(PosteriorDenoiser(denoiser, *problem, guidance), eta=1.0, **grid)
