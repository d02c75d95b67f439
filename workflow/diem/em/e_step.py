r"""The E-step: a posterior sample for every observation.

With the prior of the lap before, the E-step draws :math:`x_i \sim p(x \mid y_i)` for each
observation :math:`y_i`, some at a time. The first lap's prior is a Gaussian, whose posteriors are
sampled exactly; a learned prior is sampled by its posterior denoiser, see
:mod:`diem.diffusion.posterior_sampler`.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diem.data.observations import Observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.em.blocks import Block, Shard, blocks, whole_blocks
from diem.em.restart import Restart
from diem.em.samples import write_samples
from diem.errors import DiemError
from diem.jobs.job import Job
from diem.seeds import Stage, torch_generator

__all__ = ["EStep", "e_step"]


@dataclass(frozen=True)
class EStep:
    """The settings of an E-step: the keys of the config's ``e_step`` entry but for restarts.

    Arguments:
        sampler: The posterior sampler.
        block: The number of observations that share a random stream.
        repeats: The number of posterior samples of each observation.
        drop_last: Whether the observations of a last block that is not full are left out.
        storage: How samples are stored, ``float32`` or ``float16``.
    """

    sampler: PosteriorSampler
    block: int = 256
    repeats: int = 1
    drop_last: bool = False
    storage: str = "float32"

    @classmethod
    def from_config(cls, entry: Mapping[str, Any]) -> "EStep":
        """Builds the settings of a config's ``e_step`` entry."""
        options = {key: entry[key] for key in ("block", "repeats", "drop_last", "storage")}
        return cls(PosteriorSampler.from_config(entry, "e_step"), **options)


def e_step(
    output: str | Path,
    prior: Prior,
    observations: Observations,
    settings: EStep,
    lap: int,
    job: Job,
    shard: Shard | None = None,
    restart: Restart | None = None,
) -> None:
    """Draws posterior samples of all training and validation observations of a shard.

    Arguments:
        output: The file to write, see :mod:`diem.em.samples`.
        prior: The previous lap's prior.
        observations: The observations.
        settings: The settings.
        lap: The lap, from 1.
        job: The job. Each block is a piece of its work: an interrupted shard goes on with its next
            block, and gives the same numbers.
        shard: The part of the observations to sample; without it, all of them.
        restart: How chains start from the previous lap's samples; without it, from noise.

    Raises:
        DiemError: If samples are not finite, or the previous lap's do not fit the observations.
    """
    began = time.monotonic()
    shard, prior = shard or Shard(), prior.to(job.device)
    counts = {split: observations.count(split) for split in ("train", "validation")}
    if settings.drop_last:
        counts = whole_blocks(counts, settings.block)
    todo = shard.of(blocks(counts, settings.block, settings.repeats))
    job.progress.reset(total=sum(map(len, todo)))
    opened = restart.starts(prior, counts, settings.repeats) if restart else None

    with opened or contextlib.nullcontext() as start_of:

        def sample(block: Block) -> dict[str, np.ndarray]:
            observed = observations.load(block.split, block.rows).to(job.device)
            generator = torch_generator(job.seed, Stage.E_STEP, lap, block.number, job.device)
            start = start_of(block, observed, generator) if start_of else None
            x = settings.sampler(
                *(prior, observed.operator, observed.y, observed.sigma_y, generator),
                start=start,
                sigma_start=restart.sigma if restart else None,
            )
            what = f"{output}: posterior samples of block {block.number} of lap {lap}"
            return {"x": _stored(x, settings.storage, what), "index": observed.index}

        def sampled(block: Block) -> Mapping[str, np.ndarray]:
            return job.keep(str(block.number), partial(sample, block))

        for block in todo:
            sampled(block)
            job.progress.update(len(block))
        attributes = {
            "lap": lap,
            "seed": job.seed,
            **settings.sampler.describe(prior),
            "sigma_start": restart.sigma if restart else "none",
            "repeats": settings.repeats,
            "storage": settings.storage,
            "seconds": time.monotonic() - began,
        }
        write_samples(output, todo, sampled, attributes)


def _stored(x: Tensor, storage: str, what: str) -> np.ndarray:
    """Returns samples as they are stored, and refuses those that are not finite so."""
    stored = x.to(getattr(torch, storage))
    if torch.isfinite(stored).all():
        return stored.cpu().numpy()
    if torch.isfinite(x).all():
        raise DiemError(f"{what} are too large for e_step.storage {storage}: set it to float32.")
    raise DiemError(
        f"{what} are not finite: the denoiser of the lap before, or the noise levels, are at fault."
    )
