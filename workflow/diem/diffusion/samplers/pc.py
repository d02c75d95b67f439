"""Predictor-corrector sampling."""

import math
from typing import Annotated

from pydantic import Field

from diem.components import Count, Number, option
from diem.diffusion.samplers.ddim import DDIM

__all__ = ["PC"]


class PC(DDIM):
    r"""A step of ``ddim`` predicts, then Langevin steps at the new level correct.

    .. math:: x_s \gets x_s - \delta (x_s - d(x_s)) + \sigma_s \sqrt{2 \delta} \, \epsilon .

    References:
        | Score-Based Generative Modeling through Stochastic Differential Equations
          (Song et al., 2021)
        | https://arxiv.org/abs/2011.13456
    """

    name = "pc"

    corrections: Count = option(1, "the number of corrections after each step")
    delta: Annotated[Number, Field(gt=0, le=1)] = option(0.1, "the size of a correction")

    @property
    def step_evaluations(self) -> int:
        return 1 + self.corrections

    def step(self, denoise, x_t, t, s, noise):
        x_s = super().step(denoise, x_t, t, s, noise)
        for _ in range(self.corrections):
            mean = denoise(x_s, s)
            x_s = x_s - self.delta * (x_s - mean) + s.sigma * math.sqrt(2 * self.delta) * noise()
        return x_s
