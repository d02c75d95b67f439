"""Files of samples and of posterior samples: written batch by batch, and read for figures."""

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diem.data.observations import Observations, Observed, unit_of_values
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.em.blocks import Block, blocks
from diem.errors import DiemError
from diem.files.hdf5 import Reader, write_hdf5
from diem.inference.prior_denoiser import BATCH, OutlierWarning, PriorDenoiser, check_drawing
from diem.jobs.job import Job
from diem.jobs.resume import cached_tensor
from diem.versions import versions

__all__ = ["holds_samples", "read_posteriors", "write_posteriors", "write_samples"]

PARTS = ("x", "mean", "sd", "outliers", "index")
"""The arrays of posterior samples of a split."""


def holds_samples(path: str | Path) -> bool:
    """Returns whether an HDF5 file is one of samples or of posterior samples."""
    with Reader(path) as file:
        return {"prior", "sampler"} <= {*file.attributes}


def write_samples(
    output: str | Path,
    prior: PriorDenoiser,
    n: int,
    job: Job | None = None,
    batch: int = BATCH,
    **sampler: Any,
) -> None:
    """Writes samples of a prior to an HDF5 file: ``x``, of shape ``(n, *event)``, and its card.

    Arguments:
        output: The HDF5 file to write.
        prior: The prior.
        n: The number of samples.
        job: The job: its seed, and its progress in samples. A batch is a piece of its work: an
            interrupted run goes on with the next and writes the same bytes.
        batch: How many are drawn at once.
        sampler: As for :meth:`PriorDenoiser.sample`.
    """
    job = job or Job()
    n, batch, _ = check_drawing(n=n, batch=batch, seed=job.seed)
    draw = prior.posterior_sampler(sampler=sampler)
    counts = [min(batch, n - start) for start in range(0, n, batch)]
    drawn: set[int] = set()

    def piece(number: int) -> np.ndarray:
        def make() -> torch.Tensor:
            drawn.add(number)
            progress = job.progress.update
            return prior.draw_batch(number, counts[number], draw.sampler, job.seed, progress)

        return cached_tensor(job.keep, str(number), make).numpy()

    for number, count in enumerate(counts):
        piece(number)
        if number not in drawn:
            job.progress.update(count)
    attributes = _attributes(prior, draw, job.seed, batch)
    write_hdf5(output, {"x": map(piece, range(len(counts)))}, {**attributes, "samples": n})


def write_posteriors(
    output: str | Path,
    prior: PriorDenoiser,
    observations: Observations,
    n: int,
    job: Job | None = None,
    batch: int = BATCH,
    **e_step: Any,
) -> int:
    """Writes posterior samples of every observation of a file, their mean and standard deviation.

    Each split of the file becomes a group with ``x`` ``(N, n, *event)``, ``mean`` and ``sd`` ``(N,
    *event)``, ``outliers`` ``(N,)``, the number of samples that :meth:`PriorDenoiser.outlying`
    tells, and ``index``, the observations' own.

    Arguments:
        output: The HDF5 file to write.
        prior: The prior.
        observations: The observations.
        n: The number of samples of each observation, at least 2.
        job: The job: its seed, and its progress in samples. The samples of some observations are a
            piece of its work: an interrupted run goes on with the next and gives the same numbers.
        batch: How many samples are drawn at once.
        e_step: As for :meth:`PriorDenoiser.posterior`.

    Returns:
        The number of outliers.

    Raises:
        DiemError: If the observations do not fit the prior, or samples are not finite.
    """
    n, batch = check_drawing(n=n, batch=batch)
    if n < 2:
        raise DiemError(f"n is {n}, and a standard deviation needs at least 2 samples.")
    _check_units(prior, observations)
    began, job = time.monotonic(), job or Job()
    counts = {split: observations.count(split) for split in observations.splits()}
    todo = blocks(counts, max(1, batch // n))
    drawn: set[int] = set()
    settings = {"seed": job.seed, "batch": batch, "progress": job.progress.update, **e_step}

    def sample(block: Block) -> dict[str, np.ndarray]:
        drawn.add(block.number)
        observed = observations.load(block.split, block.rows)
        x = _posterior(prior, observed, n, block=block.number, **settings)
        return {**_arrays(prior, x), "index": observed.index}

    def piece(block: Block) -> Mapping[str, np.ndarray]:
        return job.keep(str(block.number), partial(sample, block))

    outliers = 0
    for block in todo:
        outliers += int(piece(block)["outliers"].sum())
        if block.number not in drawn:
            job.progress.update(n * len(block))

    def parts(split: str, name: str) -> Iterator[np.ndarray]:
        return (piece(block)[name] for block in todo if block.split == split)

    names = [(split, name) for split in counts for name in PARTS]
    draw = prior.posterior_sampler(**e_step)
    write_hdf5(
        output,
        {f"{split}/{name}": parts(split, name) for split, name in names},
        {
            **_attributes(prior, draw, job.seed, batch),
            "covariance": "exact" if prior.exact else draw.covariance.name,
            "samples": n,
            "outliers": outliers,
            "seconds": time.monotonic() - began,
        },
    )
    return outliers


def _posterior(prior: PriorDenoiser, observed: Observed, n: int, **settings: Any) -> torch.Tensor:
    """Returns posterior samples of observations of a file, ``(N, n, *event)``."""
    sigma_y = torch.as_tensor(observed.sigma_y)
    if 0 < sigma_y.ndim < observed.y.ndim:  # of each value, not of each observation
        sigma_y = sigma_y[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutlierWarning)  # all of them are told at once
        return prior.posterior(observed.y, observed.operator, sigma_y, n, **settings)


def _arrays(prior: PriorDenoiser, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns posterior samples ``(N, n, *event)``, and what they tell together."""
    sd, mean = torch.std_mean(x, dim=1)
    arrays = {"x": x, "mean": mean, "sd": sd, "outliers": prior.outlying(x).sum(dim=1)}
    return {name: value.cpu().numpy() for name, value in arrays.items()}


def read_posteriors(
    path: str | Path, observations: Observations, count: int
) -> dict[str, np.ndarray]:
    r"""Reads the first posteriors of a file of :func:`write_posteriors`, for a figure.

    Arguments:
        path: The file.
        observations: The observations that they are of.
        count: How many observations to read, of the first split.

    Returns:
        ``x`` ``(N, n, *event)``, ``mean`` and ``sd`` ``(N, *event)``, and what was seen as an
        event: ``y`` with NaN where nothing was observed, if it is like an event, or else
        ``adjoint``, :math:`A^\top y`. If each column or channel has its own units,
        ``offset`` and ``scale``, of the event's shape, are there too.
    """
    split = observations.splits()[0]
    observed = observations.load(split, slice(0, count))
    shape = observations.event_shape
    with Reader(path) as file:
        shown = {
            name: file.read(f"{split}/{name}", slice(0, count)) for name in ("x", "mean", "sd")
        }
        data = json.loads(file.attribute("prior", default="{}")).get("data", {})
    units = {name: data.get(name, default) for name, default in (("offset", 0.0), ("scale", 1.0))}
    if any(isinstance(value, list) for value in units.values()):
        shown |= {name: unit_of_values(value, shape).numpy() for name, value in units.items()}
    if shown["mean"].shape != (len(observed.y), *shape):
        raise DiemError(f"{path}: it holds no posteriors of {observations.path}.")
    # Observations of the shape of x may be of another kind, and of other units.
    operator = observed.operator
    alike = operator.keeps_shape is not False and operator.observation_shape == shape
    if operator.elementwise or (alike and "scale" not in shown):
        shown["y"] = torch.where(observed.operator.observed(), observed.y, torch.nan).numpy()
    else:
        shown["adjoint"] = observed.operator.adjoint(observed.y).numpy()
    return shown


def _check_units(prior: PriorDenoiser, observations: Observations) -> None:
    scaled = prior.by_column or (prior.offset, prior.scale) != (0, 1)
    if scaled and observations.has_attribute("scale"):
        raise DiemError(
            f"{observations.path}: its y are already scaled to train on; posteriors are of the file"
            f" that it was made from, {observations.attribute('source')}."
        )


def _attributes(
    prior: PriorDenoiser, draw: PosteriorSampler, seed: int, batch: int
) -> dict[str, Any]:
    """Returns the attributes of a file of samples: what made them."""
    origin = draw.describe(prior.prior)
    return {
        "seed": seed,
        "batch": batch,
        "device": prior.device.type,
        **{key: origin[key] for key in ("sampler", "steps", "denoiser_evaluations", "precision")},
        "versions": json.dumps(versions()),
        "prior": json.dumps(prior.card),
    }
