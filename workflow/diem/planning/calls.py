"""How often a method of restoration asks for the denoiser, found by running it on nothing."""

from collections.abc import Mapping
from typing import Any

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule, VPSchedule
from torch import Tensor

from diem import operators
from diem.paper.methods import METHODS, Problem
from diem.paper.restoration.restore import restore
from diem.seeds import Stage, rng

__all__ = ["calls_per_step"]


class _Counted(Denoiser):
    """A denoiser that costs nothing, and counts what it is asked for."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.evaluations = self.products = 0

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        self.evaluations += 1
        mean = x_t / 2
        if mean.requires_grad:
            mean.register_hook(self._product)
        return DiracPosterior(mean=mean)

    def _product(self, gradient: Tensor) -> None:
        self.products += 1


def calls_per_step(method: Mapping[str, Any]) -> tuple[float, float]:
    """Counts a method's evaluations of the denoiser and products with its Jacobian, by step."""
    steps, spec = 4, {"name": "downsample", "factor": 2}
    operator = operators.simulate(spec, (1, 4, 4), 1, rng(0, Stage.CORRUPTION))
    denoiser = _Counted(VPSchedule())
    problem = Problem(operator, torch.zeros(1, *operator.observation_shape), 0.1)
    restore(METHODS.parse(method), denoiser, problem, steps, seed=0)
    return denoiser.evaluations / steps, denoiser.products / steps
