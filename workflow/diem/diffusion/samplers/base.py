r"""What a reverse sampler is, and the noise levels that it walks down.

A sampler walks down a grid of noise levels :math:`\sigma_0 > \dots > \sigma_N` from :math:`x_t =
\mu_x + \sigma_0 z`, by its own step from each level to the next, and denoises once at the last.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
    | https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from diem.components import Component, Count, option
from diem.errors import DiemError
from diem.lazy import torch

if TYPE_CHECKING:
    from azula.denoise import Denoiser
    from azula.noise import VESchedule
    from torch import Generator, Tensor

    from diem.diffusion.prior import Prior

__all__ = ["Denoise", "Level", "Sampler", "noise_levels", "sample_prior", "sigma_to_time"]


class Level(NamedTuple):
    """A noise level.

    Attributes:
        sigma: The standard deviation of the noise, of shape ``()``.
        time: The time at which the schedule reaches it, of shape ``(1,)``.
    """

    sigma: Tensor
    time: Tensor


Denoise: TypeAlias = "Callable[[Tensor, Level], Tensor]"
r"""Returns :math:`d(x_t) = E[x \mid x_t]` at a noise level."""


class Sampler(Component):
    """A reverse sampler. One of one's own defines :meth:`step`."""

    steps: Count = option(256, "the number of steps", paper="256 / 4096 / 64")
    spacing: Literal["log_linear", "karras"] = option(
        "log_linear", "the spacing of the noise levels: `log_linear`, or `karras` (rho = 7)"
    )

    @property
    def adds_spread(self) -> bool:
        """Whether it takes steps with draws of ``x`` given ``x_t`` in the place of their mean."""
        return False

    @property
    def title(self) -> str:
        """Its name in files and tables, which tells whether it adds the spread."""
        return f"{self.name} + spread" if self.adds_spread else self.name

    @property
    def step_evaluations(self) -> int:
        """The number of denoiser evaluations of one step."""
        return 1

    @property
    def evaluations(self) -> int:
        """The number of denoiser evaluations a sample."""
        return self.steps * self.step_evaluations + 1

    @abc.abstractmethod
    def step(
        self, denoise: Denoise, x_t: Tensor, t: Level, s: Level, noise: Callable[[], Tensor]
    ) -> Tensor:
        """Takes one step, from the noise level ``t`` to the lower level ``s``.

        Arguments:
            denoise: The denoiser.
            x_t: Noisy samples at the level ``t``, of shape ``(B, *event)``.
            t: The level of ``x_t``.
            s: The level to go to.
            noise: Draws standard normal noise of the shape of ``x_t``.

        Returns:
            Noisy samples at the level ``s``, of shape ``(B, *event)``.
        """

    def __call__(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        sigma_start: float,
        generator: Generator,
        step_done: Callable[[], None] = lambda: None,
        spread: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Walks from ``x_t`` at ``sigma_start`` to a clean sample.

        Arguments:
            denoiser: An azula denoiser on a variance-exploding schedule.
            x_t: The noisy start, of shape ``(B, *event)``.
            sigma_start: Its noise level.
            generator: The random stream.
            step_done: Called after each step.
            spread: Draws, at a noise level of shape ``()``, what the denoiser's mean leaves out of
                ``x``, of the shape of ``x_t``; without it, steps are taken with the mean.

        Returns:
            The samples, of shape ``(B, *event)``.

        Raises:
            DiemError: If a step, as that of a user's own may, returns something else.
        """
        schedule = denoiser.schedule
        sigmas = noise_levels(self.spacing, self.steps, schedule.sigma_min, sigma_start)
        times = sigma_to_time(schedule, sigmas).to(x_t)
        levels = [Level(*pair) for pair in zip(sigmas.to(x_t), times.split(1), strict=True)]

        def denoise(x: Tensor, level: Level) -> Tensor:
            mean = denoiser(x, level.time).mean
            return mean if spread is None else mean + spread(level.sigma)

        def noise() -> Tensor:
            return torch.empty_like(x_t).normal_(generator=generator)

        with torch.no_grad():
            for t, s in itertools.pairwise(levels):
                shape, x_t = x_t.shape, self.step(denoise, x_t, t, s, noise)
                if not torch.is_tensor(x_t) or x_t.shape != shape:
                    raise DiemError(
                        f"A step of the sampler {self.name!r} does not return a tensor of the shape"
                        f" of x_t, {tuple(shape)}."
                    )
                step_done()
            return denoise(x_t, levels[-1])


def noise_levels(
    spacing: str, steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> Tensor:
    r"""Returns the descending grid of ``steps + 1`` noise levels, in double precision.

    ``log_linear`` is uniform in :math:`\log \sigma`; ``karras`` is uniform in
    :math:`\sigma^{1 / \rho}`, which spends more of few steps on the high levels.
    """
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if spacing == "log_linear":
        return torch.exp(math.log(sigma_max) + u * (math.log(sigma_min) - math.log(sigma_max)))
    if spacing == "karras":
        high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
        return (high + u * (low - high)) ** rho
    raise ValueError(f"The spacing must be 'log_linear' or 'karras', not {spacing!r}.")


def sigma_to_time(schedule: VESchedule, sigma: Tensor) -> Tensor:
    """Returns the time at which a schedule reaches ``sigma``."""
    low, high = math.log(schedule.sigma_min), math.log(schedule.sigma_max)
    return (torch.log(sigma) - low) / (high - low)


def sample_prior(
    prior: Prior,
    count: int,
    sampler: Sampler,
    generator: Generator,
    step_done: Callable[[], None] = lambda: None,
) -> Tensor:
    """Draws samples of a prior; exact ones if it is the Gaussian.

    Arguments:
        prior: The prior.
        count: The number of samples.
        sampler: The sampler.
        generator: The random stream, on the prior's device.
        step_done: Called after each step.

    Returns:
        The samples, of shape ``(count, *event)``.

    Raises:
        DiemError: If the sampler adds the spread and the card has no error of the denoiser.
    """
    from diem.diffusion.spread import Spread

    if prior.denoiser is None:
        return prior.gaussian.sample(count, generator)
    mean = prior.gaussian.mean
    noise = torch.randn(count, *mean.shape, generator=generator, device=mean.device)
    sigma = prior.denoiser.schedule.sigma_max
    spread = Spread.of(prior).prior_draws(count, generator) if sampler.adds_spread else None
    return sampler(prior.denoiser, mean + sigma * noise, sigma, generator, step_done, spread)
