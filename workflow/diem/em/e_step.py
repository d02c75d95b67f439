r"""Reverse samplers and the E-step.

A sampler walks down a grid of noise levels :math:`\sigma_0 > \dots > \sigma_N` from :math:`x_t =
\mu_x + \sigma_0 z` and denoises once at the last level. The steps follow the paper:

- ``ddpm``: :math:`x_s = x_t - \tau (x_t - d) + \sigma_s \sqrt{\tau} \epsilon`, with :math:`\tau = 1
  - (\sigma_s / \sigma_t)^2`;
- ``ddim``: :math:`x_s = x_t - (1 - \sigma_s / \sigma_t) (x_t - d)`;
- ``pc``: a ``ddim`` predictor, then Langevin corrections :math:`x \gets x - \delta (x - d) + \sigma
  \sqrt{2 \delta} \epsilon`.

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020)
    | https://arxiv.org/abs/2006.11239

    | Denoising Diffusion Implicit Models (Song et al., 2021)
    | https://arxiv.org/abs/2010.02502

    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
    | https://arxiv.org/abs/2206.00364
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from azula.denoise import Denoiser
from torch import Tensor
from tqdm import tqdm

from diem.data.observations import Observations
from diem.diffusion.denoisers import Prior, sigma_to_time
from diem.diffusion.gaussian import noise_of
from diem.diffusion.posterior import PartsDenoiser, PosteriorDenoiser
from diem.diffusion.solvers import column
from diem.errors import DiemError
from diem.files.hdf5 import Rows, write_hdf5
from diem.jobs.resume import Pieces
from diem.networks.runtime import compile_network, set_memory_format
from diem.operators.base import Operator
from diem.seeds import Stage, torch_generator

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "PosteriorSampler",
    "Sampler",
    "blocks",
    "e_step",
    "noise_levels",
    "replace_contradicting",
    "restart_level",
    "sample_prior",
]

SAMPLERS = ("ddpm", "ddim", "pc")

SPACINGS = ("log_linear", "karras")
"""The spacings of noise levels, see :func:`noise_levels`."""


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


@dataclass(frozen=True)
class Sampler:
    """A reverse sampler: the keys of the config's ``sampler`` entry.

    Arguments:
        name: A name of :data:`SAMPLERS`.
        steps: The number of steps.
        spacing: The spacing of the noise levels, see :func:`noise_levels`.
        corrections: The Langevin corrections after each step of ``pc``.
        delta: Their size.
    """

    name: str = "ddpm"
    steps: int = 256
    spacing: str = "log_linear"
    corrections: int = 1
    delta: float = 0.1

    @property
    def evaluations(self) -> int:
        """The number of denoiser evaluations a sample."""
        return self.steps * (1 + self.corrections * (self.name == "pc")) + 1

    def __call__(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        sigma_start: float,
        generator: torch.Generator,
        step_done: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Walks from ``x_t`` at ``sigma_start`` to a clean sample.

        Arguments:
            denoiser: An azula denoiser on a variance-exploding schedule.
            x_t: The noisy start, of shape ``(B, *event)``.
            sigma_start: Its noise level.
            generator: The random stream.
            step_done: Called after each step.

        Returns:
            The samples, of shape ``(B, *event)``.
        """
        schedule = denoiser.schedule
        levels = noise_levels(self.spacing, self.steps, schedule.sigma_min, sigma_start)
        times = sigma_to_time(schedule, levels).to(x_t)
        levels = levels.to(x_t)

        def noise() -> Tensor:
            return torch.empty_like(x_t).normal_(generator=generator)

        with torch.no_grad():
            for i in range(self.steps):
                mean = denoiser(x_t, times[i : i + 1]).mean
                ratio = levels[i + 1] / levels[i]
                if self.name == "ddpm":
                    tau = 1 - ratio**2
                    x_t = x_t - tau * (x_t - mean) + levels[i + 1] * torch.sqrt(tau) * noise()
                else:
                    x_t = x_t - (1 - ratio) * (x_t - mean)
                for _ in range(self.corrections if self.name == "pc" else 0):
                    mean = denoiser(x_t, times[i + 1 : i + 2]).mean
                    kick = levels[i + 1] * math.sqrt(2 * self.delta) * noise()
                    x_t = x_t - self.delta * (x_t - mean) + kick
                step_done()
            return denoiser(x_t, times[-1:]).mean


def sample_prior(
    prior: Prior,
    count: int,
    sampler: Sampler,
    generator: torch.Generator,
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
    """
    if prior.denoiser is None:
        return prior.gaussian.sample(count, generator)
    mean = prior.gaussian.mean
    noise = torch.randn(count, *mean.shape, generator=generator, device=mean.device)
    sigma = prior.denoiser.schedule.sigma_max
    return sampler(prior.denoiser, mean + sigma * noise, sigma, generator, step_done)


@dataclass(frozen=True)
class PosteriorSampler:
    """A posterior sampler: the keys of the config's ``e_step`` entry that shape one sample.

    Arguments:
        sampler: The reverse sampler.
        covariance: The ``V`` of the guidance, see :data:`diem.diffusion.posterior.COVARIANCES`.
        iterations: The number of conjugate-gradient iterations.
        limit: The largest residual that the guidance follows, see
            :class:`diem.diffusion.posterior.PosteriorDenoiser`.
        batch: The most observations that the network evaluates at once, or none for all of them.
            It bounds the memory and changes the numbers by rounding only.
        precision: The precision of the network's products, see :data:`diem.networks.runtime.PRECISIONS`.
        channels_last: Whether the network's kernels and images are laid out channels-last.
        compile: Whether the network is compiled.
    """

    sampler: Sampler
    covariance: str = "tweedie"
    iterations: int = 1
    limit: float | None = None
    batch: int | None = None
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False

    @property
    def products(self) -> int:
        """The number of vector-Jacobian products a sample."""
        per_evaluation = self.iterations if self.covariance == "tweedie" else 1
        return self.sampler.evaluations * per_evaluation

    @classmethod
    def from_config(cls, entry: Mapping[str, Any]) -> "PosteriorSampler":
        """Builds the sampler of a config's ``e_step`` entry, which may hold other keys too."""
        names = {field.name for field in fields(cls)} - {"sampler"}
        options = {key: value for key, value in entry.items() if key in names}
        return cls(sampler=Sampler(**entry["sampler"]), **options)

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
            DiemError: If the network is to be compiled and this machine cannot.
        """
        if prior.denoiser is None:
            return prior.gaussian.sample_posterior(operator, y, sigma_y, generator)
        set_memory_format(prior.denoiser, self.channels_last)
        if self.compile:
            compile_network(prior.denoiser.backbone, "e_step.compile")
        denoiser = self._denoiser(prior, operator, y, sigma_y)
        if start is None:
            start = prior.gaussian.mean.expand(len(y), *prior.event_shape)
            sigma_start = prior.denoiser.schedule.sigma_max
        noise = torch.empty_like(start, memory_format=torch.contiguous_format)
        x_t = start + sigma_start * noise.normal_(generator=generator)
        return self.sampler(denoiser, x_t, sigma_start, generator, step_done)

    def _denoiser(
        self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float | Tensor
    ) -> Denoiser:
        """Returns the posterior's denoiser, in parts of :attr:`batch` observations."""
        size = self.batch or len(y)
        parts = [
            PosteriorDenoiser(
                prior.denoiser,
                operator[rows],
                y[rows],
                noise_of(sigma_y, y, rows),
                covariance=self.covariance,
                iterations=self.iterations,
                gaussian=prior.gaussian,
                limit=self.limit,
                precision=self.precision,
            )
            for rows in (slice(start, start + size) for start in range(0, len(y), size))
        ]
        return parts[0] if len(parts) == 1 else PartsDenoiser(parts, size)

    @property
    def engine(self) -> dict[str, Any]:
        """What the network ran with, for the card of samples."""
        names = ("precision", "channels_last", "compile")
        return {name: getattr(self, name) for name in names}


def restart_level(restart: tuple[float, float] | None, lap: int, laps: int) -> float | None:
    """Returns the noise level from which a lap restarts the previous lap's samples.

    The level falls geometrically from the first to the second number of ``restart`` over the laps
    that restart: the third to the last, since the second lap's chains would start from samples of
    the Gaussian.

    Arguments:
        restart: The first and the last level, or none for laps that start from noise.
        lap: The lap, from 1.
        laps: The number of laps.
    """
    if restart is None or lap < 3:
        return None
    u = (lap - 3) / max(laps - 3, 1)
    return restart[0] ** (1 - u) * restart[1] ** u


def replace_contradicting(
    x: Tensor,
    prior: Prior,
    operator: Operator,
    y: Tensor,
    sigma_y: float | Tensor,
    most: float,
    generator: torch.Generator,
) -> Tensor:
    r"""Replaces samples that contradict their observation by samples of the Gaussian posterior.

    A chain that ended in a wrong mode does not leave it when it restarts from a low noise level.

    Arguments:
        x: The samples, of shape ``(B, *event)``.
        prior: The prior, whose Gaussian is sampled.
        operator: The forward operators, one an observation.
        y: The observations, of shape ``(B, *observation)``.
        sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
        most: The largest RMS over an observation's values of :math:`(y - A x) / \sigma_y` of a
            sample that is kept.
        generator: The random stream, on the prior's device.

    Returns:
        The samples, of shape ``(B, *event)``.
    """
    observed = operator.observed().expand_as(y)
    residual = ((y - operator.forward(x)) / sigma_y * observed).square().flatten(1).sum(dim=1)
    rms = torch.sqrt(residual / observed.flatten(1).sum(dim=1).clamp(min=1))
    fresh = prior.gaussian.sample_posterior(operator, y, sigma_y, generator)
    return torch.where(column(rms <= most, x), x, fresh)


def blocks(counts: Mapping[str, int], size: int) -> list[tuple[str, slice]]:
    """Returns the blocks of all splits: each a split and some consecutive rows of it.

    The number of a block in this list selects its random stream.
    """
    return [
        (split, slice(start, min(start + size, count)))
        for split, count in counts.items()
        for start in range(0, count, size)
    ]


def e_step(
    output: str | Path,
    prior: Prior,
    observations: Observations,
    sampler: PosteriorSampler,
    block: int,
    repeats: int,
    seed: int,
    lap: int,
    shard: int = 1,
    shards: int = 1,
    previous: Sequence[str | Path] = (),
    sigma_start: float | None = None,
    pieces: Pieces | None = None,
    progress: tqdm | None = None,
    drop_last: bool = False,
    restart_residual: float | None = None,
) -> None:
    """Draws a posterior sample for every training and validation observation of a shard.

    Every block has its own random stream and is a piece of the work, so that an interrupted shard
    goes on with its next block and gives the same numbers.

    Arguments:
        output: The shard's HDF5 file: ``train`` and ``validation``, each ``x`` and ``index``.
        prior: The previous lap's prior, on the device to use.
        observations: The observations.
        sampler: The posterior sampler.
        block: The number of observations in a block.
        repeats: The number of posterior samples of each observation.
        seed: The config's seed.
        lap: The lap, from 1.
        shard: Which shard, from 1.
        shards: The number of shards.
        previous: The previous lap's shards, if this lap restarts from them.
        sigma_start: The noise level to restart from.
        pieces: The blocks of an earlier attempt; without them, nothing is kept.
        progress: A progress bar that counts posterior samples.
        drop_last: Whether the observations of a last block that is not full are left out.
        restart_residual: If given, the largest residual of a sample to restart from, see
            :func:`replace_contradicting`.

    Raises:
        DiemError: If samples are not finite, or the previous lap's do not fit the observations.
    """
    device = prior.gaussian.mean.device
    counts = {split: observations.count(split) for split in ("train", "validation")}
    if drop_last:
        counts = {split: count - count % block for split, count in counts.items()}
    once = blocks(counts, block)
    todo = list(enumerate(once * repeats))
    todo = todo[(shard - 1) * len(todo) // shards : shard * len(todo) // shards]
    if progress is not None:
        progress.reset(total=sum(rows.stop - rows.start for _, (_, rows) in todo))
    starts = {}
    if sigma_start is not None:
        for split in counts:
            # Each row is read once.
            x = Rows(previous, f"{split}/x", prior.event_shape, cache_mb=0)
            if len(x) != counts[split] * repeats:
                raise DiemError(
                    f"{previous[0]}: its lap has {len(x)} samples of {split!r}, where"
                    f" {counts[split]} observations and e_step.repeats {repeats} are used."
                )
            starts[split] = x

    def draw(number: int, split: str, rows: slice) -> dict[str, np.ndarray]:
        observed = observations.load(split, rows).to(device)
        generator = torch_generator(seed, Stage.E_STEP, lap, number, device)
        start = None
        if starts:
            first = number // len(once) * counts[split]
            some = starts[split][first + rows.start : first + rows.stop]
            start = torch.from_numpy(some).to(device)
            if restart_residual is not None:
                start = replace_contradicting(
                    start,
                    prior,
                    observed.operator,
                    observed.y,
                    observed.sigma_y,
                    restart_residual,
                    generator,
                )
        x = sampler(
            prior,
            observed.operator,
            observed.y,
            observed.sigma_y,
            generator,
            start=start,
            sigma_start=sigma_start,
        )
        if not torch.isfinite(x).all():
            raise DiemError(
                f"{output}: the posterior samples of lap {lap} are not finite in block"
                f" {number}: the denoiser of the lap before, or the noise levels, are at fault."
            )
        return {"x": x.cpu().numpy(), "index": observed.index}

    began = time.monotonic()
    pieces = pieces or Pieces()

    def block_of(number: int, split: str, rows: slice) -> Mapping[str, np.ndarray]:
        return pieces(str(number), partial(draw, number, split, rows))

    with contextlib.ExitStack() as opened:
        for x in starts.values():
            opened.enter_context(x)
        for number, (split, rows) in todo:
            block_of(number, split, rows)
            if progress is not None:
                progress.update(rows.stop - rows.start)

    def parts(name: str, of: str) -> Iterator[np.ndarray]:
        for number, (split, rows) in todo:
            if split == of:
                yield block_of(number, split, rows)[name]

    here = dict.fromkeys(split for _, (split, _) in todo)
    arrays = {f"{split}/{name}": parts(name, split) for split in here for name in ("x", "index")}
    exact = prior.denoiser is None
    attributes = {
        "lap": lap,
        "shard": shard,
        "shards": shards,
        "seed": seed,
        "sampler": "exact" if exact else sampler.sampler.name,
        "steps": 0 if exact else sampler.sampler.steps,
        "covariance": "exact" if exact else sampler.covariance,
        "denoiser_evaluations": 0 if exact else sampler.sampler.evaluations,
        "vector_jacobian_products": 0 if exact else sampler.products,
        **({"precision": "exact"} if exact else sampler.engine),
        "sigma_start": "none" if sigma_start is None else sigma_start,
        "seconds": time.monotonic() - began,
    }
    write_hdf5(output, arrays, attributes)
