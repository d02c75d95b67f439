"""The posterior sampler: a reverse sampler that walks with the posterior's denoiser."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from azula.denoise import Denoiser
from torch import Tensor

from diem.components import validated
from diem.diffusion.covariances import COVARIANCES, Covariance
from diem.diffusion.covariances.tweedie import Tweedie
from diem.diffusion.gaussian import noise_of
from diem.diffusion.options import Guiding
from diem.diffusion.posterior import Guidance, PartsDenoiser, PosteriorDenoiser
from diem.diffusion.prior import Prior
from diem.diffusion.samplers import SAMPLERS, Sampler
from diem.diffusion.spread import Spread
from diem.errors import DiemError
from diem.networks.runtime import Compile, bounded_memory, compile_network, set_memory_format
from diem.operators.base import Operator

__all__ = ["PosteriorSampler", "refuse_infinite"]


def refuse_infinite(x: Tensor) -> None:
    """Raises a :class:`DiemError` if posterior samples are not finite."""
    if not torch.isfinite(x).all():
        raise DiemError(
            "The posterior samples are not finite: the noise levels of the prior and sigma_y do not"
            " fit each other, or the sampler has too few steps."
        )


@dataclass(frozen=True)
class PosteriorSampler:
    """A posterior sampler: the keys of the config's ``e_step`` entry that shape one sample.

    Arguments:
        sampler: The reverse sampler.
        covariance: The ``V`` of the guidance.
        iterations: The number of conjugate-gradient iterations.
        limit: The largest residual that the guidance follows, see
            :class:`diem.diffusion.posterior.Guidance`.
        batch: The most observations that the network evaluates at once, or none for all of them.
            It bounds the memory and changes the numbers by rounding only.
        precision: The precision of the network's products, see
            :data:`diem.networks.runtime.PRECISIONS`.
        channels_last: Whether the network's kernels and images are laid out channels-last.
        compile: Whether the network is compiled, and how, see
            :data:`diem.networks.runtime.Compile`.
    """

    sampler: Sampler
    covariance: Covariance = field(default_factory=Tweedie)
    iterations: int = 1
    limit: float | None = None
    batch: int | None = None
    precision: str = "float32"
    channels_last: bool = False
    compile: Compile = False

    @property
    def products(self) -> int:
        """The number of vector-Jacobian products a sample."""
        return self.sampler.evaluations * self.covariance.products(self.iterations)

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], where: str = "") -> "PosteriorSampler":
        """Builds the sampler of a config's ``e_step`` entry, which may hold other keys too.

        Arguments:
            entry: The entry.
            where: The place of the entry in the configuration, for errors.

        Raises:
            DiemError: If the sampler or the covariance is unknown, or an option is out of bounds.
        """
        prefix = f"{where}." if where else ""
        names = {field.name for field in fields(cls)}
        options = {key: value for key, value in entry.items() if key in names}
        bounded = {key: value for key, value in options.items() if key in Guiding.model_fields}
        options["sampler"] = SAMPLERS.parse(entry["sampler"], f"{prefix}sampler")
        options |= validated(Guiding, bounded, where).model_dump(include=set(bounded))
        if "covariance" in entry:
            options["covariance"] = COVARIANCES.parse(entry["covariance"], f"{prefix}covariance")
        return cls(**options)

    def describe(self, prior: Prior) -> dict[str, Any]:
        """Returns what made samples of a prior, or of its posteriors, for their file's attributes.

        Arguments:
            prior: The prior; of a Gaussian, samples are exact.
        """
        if prior.denoiser is None:
            counts = ("steps", "denoiser_evaluations", "vector_jacobian_products")
            names = ("sampler", "covariance", "precision")
            return {**dict.fromkeys(names, "exact"), **dict.fromkeys(counts, 0)}
        return {
            "sampler": self.sampler.title,
            "steps": self.sampler.steps,
            "covariance": self.covariance.name,
            "denoiser_evaluations": self.sampler.evaluations,
            "vector_jacobian_products": self.products,
            "precision": self.precision,
            "channels_last": self.channels_last,
            "compile": self.compile,
        }

    def __call__(
        self,
        prior: Prior,
        operator: Operator,
        y: Tensor,
        sigma_y: float | Tensor,
        generator: torch.Generator,
        start: Tensor | None = None,
        sigma_start: float | None = None,
        step_done: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Draws one posterior sample an observation; an exact one if the prior is Gaussian.

        Arguments:
            prior: The prior.
            operator: The forward operators, one an observation.
            y: The observations, of shape ``(B, *observation)``.
            sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
            generator: The random stream, on the prior's device.
            start: If given, earlier samples ``(B, *event)`` to start from, re-noised.
            sigma_start: The level to re-noise them to.
            step_done: Called after each step.

        Returns:
            The samples, of shape ``(B, *event)``.

        Raises:
            DiemError: If the network is to be compiled and this machine cannot, if so many
                observations at once do not fit its memory, or if the sampler adds the spread, or
                the covariance is scaled, and the prior's card has no error of its denoiser.
        """
        if prior.denoiser is None:
            return prior.gaussian.sample_posterior(operator, y, sigma_y, generator)
        set_memory_format(prior.denoiser, self.channels_last)
        if self.compile:
            compile_network(prior.denoiser.backbone, "e_step.compile", self.compile)
        denoiser = self._denoiser(prior, operator, y, sigma_y)
        if start is None or sigma_start is None:
            start = prior.gaussian.mean.expand(len(y), *prior.event_shape)
            sigma_start = prior.denoiser.schedule.sigma_max
        noise = torch.empty_like(start, memory_format=torch.contiguous_format)
        x_t = start + sigma_start * noise.normal_(generator=generator)
        spread = None
        if self.sampler.adds_spread:
            spread = Spread.of(prior).posterior_draws(operator, y, sigma_y, generator)
        with bounded_memory("e_step.batch", min(self.batch or len(y), len(y)), y.device):
            return self.sampler(denoiser, x_t, sigma_start, generator, step_done, spread)

    def _denoiser(
        self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float | Tensor
    ) -> Denoiser:
        """Returns the posterior's denoiser, in parts of :attr:`batch` observations."""
        guidance = Guidance(self.covariance, self.iterations, self.limit)
        size = self.batch or len(y)
        gaussian = Spread.of(prior) if self.covariance.needs_error else prior.gaussian
        parts = [
            PosteriorDenoiser(
                prior.denoiser,
                operator[rows],
                y[rows],
                noise_of(sigma_y, y, rows),
                guidance,
                gaussian=gaussian,
                precision=self.precision,
            )
            for rows in (slice(start, start + size) for start in range(0, len(y), size))
        ]
        return parts[0] if len(parts) == 1 else PartsDenoiser(parts, size)
