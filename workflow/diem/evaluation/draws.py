"""What an evaluation draws: samples of a prior, and of its posteriors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diem.data.observations import Observed
from diem.diffusion.posterior_sampler import PosteriorSampler, refuse_infinite
from diem.diffusion.prior import Prior
from diem.diffusion.samplers import Sampler, sample_prior
from diem.jobs.job import Job
from diem.jobs.resume import cached_tensor
from diem.networks.runtime import bounded_memory
from diem.seeds import Stage, torch_generator

__all__ = ["Blocks", "Posteriors", "prior_samples", "sampler_card"]


class Blocks:
    """Rows that are made block by block when they are asked for, such as of pieces that are kept.

    Arguments:
        count: The number of rows.
        size: The number of rows in a block; the last one may have less.
        make: Returns a block, given its number and its rows.
    """

    def __init__(self, count: int, size: int, make: Callable[[int, slice], np.ndarray]) -> None:
        self.count, self.size = count, size

        @lru_cache(maxsize=1)  # the next rows may be of the same block
        def block(number: int) -> np.ndarray:
            return make(number, slice(number * size, min((number + 1) * size, count)))

        self.block = block

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.count)
        parts = []
        for number in range(start // self.size, -(-stop // self.size)):
            first = number * self.size
            parts.append(self.block(number)[max(start - first, 0) : stop - first])
        return np.concatenate(parts)


def prior_samples(prior: Prior, sampler: Sampler, settings: Mapping[str, Any], job: Job) -> Blocks:
    """Draws all samples of a prior that were not kept, a piece each block.

    Arguments:
        prior: The prior, on the device to use.
        sampler: The reverse sampler.
        settings: The config's ``evaluation`` entry: ``samples`` and ``block``.
        job: The job.
    """
    device = prior.gaussian.mean.device
    total, size = settings["samples"], settings["block"]

    def block(number: int, rows: slice) -> np.ndarray:
        # The same noise for every lap, so that laps can be compared sample by sample.
        generator = torch_generator(job.seed, Stage.PRIOR, 0, number, device)
        draw = partial(sample_prior, prior, rows.stop - rows.start, sampler, generator)
        with bounded_memory("evaluation.block", rows.stop - rows.start, device):
            return cached_tensor(job.keep, f"prior/{number}", draw).numpy()

    x = Blocks(total, size, block)
    for start in range(0, total, size):
        job.progress.update(len(x[start : start + size]))
    return x


@dataclass(frozen=True)
class Posteriors:
    """Draws posterior samples, the same number of each observation.

    Arguments:
        prior: The prior, on the device to use.
        sampler: The sampler of its posteriors.
        count: The number of samples of each observation.
        job: The job.
    """

    prior: Prior
    sampler: PosteriorSampler
    count: int
    job: Job

    def draw(self, observed: Observed, name: str, stage: Stage, part: int = 0) -> Tensor:
        """Draws samples ``(observations, draws, *event)`` that were not kept, a piece each draw.

        Arguments:
            observed: The observations.
            name: The name that the pieces' names begin with.
            stage: The purpose of the random numbers.
            part: Which part of the observations these are.

        Raises:
            DiemError: If one is not finite.
        """
        device = self.prior.gaussian.mean.device
        on_device = observed.to(device)
        given = (on_device.operator, on_device.y, on_device.sigma_y)
        draws = []
        for number in range(self.count):
            generator = torch_generator(self.job.seed, stage, part, number, device)
            draw = partial(self.sampler, self.prior, *given, generator)
            draws.append(cached_tensor(self.job.keep, f"{name}/{number}", draw))
            refuse_infinite(draws[-1])
            self.job.progress.update(len(observed.y))
        return torch.stack(draws, dim=1)

    def card(self, observations: int) -> dict[str, Any]:
        """Returns what made the samples of test observations."""
        sampled = sampler_card(self.prior, self.sampler.sampler, self.sampler.precision)
        return {"split": "test", "samples": observations * self.count, **sampled}


def sampler_card(prior: Prior, sampler: Sampler, precision: str = "float32") -> dict[str, Any]:
    """Returns how samples of a prior, or of its posteriors, were drawn."""
    if prior.denoiser is None:
        exact = {"sampler": "exact", "sampler_steps": 0, "denoiser_evaluations": 0}
        return {**exact, "precision": "exact"}
    return {
        "sampler": sampler.title,
        "sampler_steps": sampler.steps,
        "denoiser_evaluations": sampler.evaluations,
        "precision": precision,
    }
