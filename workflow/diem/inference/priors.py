r"""Priors to go on with: samples, and posterior samples of new observations.

:func:`load_prior` (:py:`diem.load_prior`) turns a file of this workflow into an azula denoiser, so
that everything of azula works with it too: samplers, guidance, plugins. It says nothing of how the
prior was made; :attr:`PriorDenoiser.card` does.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import VESchedule
from torch import Tensor

from diem.config.resolve import merge
from diem.data.observations import Observations, Observed
from diem.diffusion import denoisers
from diem.diffusion.denoisers import Prior
from diem.diffusion.gaussian import Gaussian, noise_of
from diem.diffusion.posterior import COVARIANCES
from diem.em.e_step import SAMPLERS, SPACINGS, PosteriorSampler, Sampler, blocks, sample_prior
from diem.errors import DiemError, nearest
from diem.files.hdf5 import Reader, write_hdf5
from diem.jobs.resume import Pieces, cached_tensor
from diem.networks.runtime import PRECISIONS
from diem.operators.base import Operator
from diem.seeds import Stage, torch_generator
from diem.versions import versions

__all__ = [
    "BATCH",
    "PriorDenoiser",
    "load_prior",
    "read_posteriors",
    "rows_of",
    "write_posteriors",
    "write_samples",
]

BATCH = 256
"""How many samples are drawn at once, unless told otherwise."""


def load_prior(path: str | Path, device: str | torch.device = "cpu") -> "PriorDenoiser":
    """Loads a prior, ready to sample.

    Arguments:
        path: A prior that the workflow trained (``prior.safetensors``) or fitted
            (``gaussian.safetensors``), or that ``diem export`` wrote.
        device: The device to sample on.

    Raises:
        DiemError: If the file cannot be read, or holds no prior.
    """
    return PriorDenoiser(denoisers.load_prior(path)).to(device)


class PriorDenoiser(Denoiser):
    r"""Creates an azula denoiser of a prior, which draws samples and posterior samples as well.

    Everything is in the units of the observations that the prior was learned from: those of the
    user's file, or in simulated experiments data that span [-2, 2]. What the network needs is
    inside: its preconditioning, and the ``offset`` and ``scale`` of the config's ``data``. The
    schedule is the one that the prior was trained with, in these units too: :math:`x_t = x +
    \sigma_t z`. A Gaussian prior, which no network was trained for, has an exact denoiser, exact
    samples and exact posteriors.

    Azula's samplers start best from this prior's mean: ``sampler.init((8, *prior.event_shape),
    mean=prior.mean)``.

    Arguments:
        prior: The prior.

    Attributes:
        schedule: The noise schedule.
        offset: The value of ``x`` that is 0 to the network.
        scale: The difference of ``x`` that is 1 to the network.
        card: What made the prior: data, operator, settings, seed, versions and, of an exported
            prior, its metrics.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        for name, value in vars(prior.gaussian).items():
            self.register_buffer(f"_{name}", value)
        self.denoiser = prior.denoiser
        self.card = prior.card
        data = self.card.get("data", {})
        self.offset, self.scale = data.get("offset", 0.0), data.get("scale", 1.0)
        levels = VESchedule(1e-3, 1e2) if self.exact else prior.denoiser.schedule
        self.schedule = VESchedule(self.scale * levels.sigma_min, self.scale * levels.sigma_max)
        self.eval().requires_grad_(False)

    @property
    def exact(self) -> bool:
        """Whether this is a Gaussian prior, of which all is known in closed form."""
        return self.denoiser is None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one ``x``."""
        return tuple(self._mean.shape)

    @property
    def device(self) -> torch.device:
        """The device to sample on, see :meth:`torch.nn.Module.to`."""
        return self._mean.device

    @property
    def mean(self) -> Tensor:
        """The mean of ``x``, of the event's shape."""
        return self.offset + self.scale * self._mean

    @property
    def _prior(self) -> Prior:
        """The prior in the network's units."""
        gaussian = Gaussian(self._mean, self._noise, self._factors)
        return Prior(gaussian, self.denoiser, self.card)

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        """Returns the mean ``E[x | x_t]``.

        Arguments:
            x_t: A noisy tensor, of shape ``(B, *event)``.
            t: The time, of shape ``()`` or ``(B,)``; of a Gaussian prior ``()``.
            kwargs: Passed to the network.
        """
        u_t, prior = (x_t - self.offset) / self.scale, self._prior
        denoiser = prior.gaussian.denoiser(VESchedule(1e-3, 1e2)) if self.exact else self.denoiser
        return DiracPosterior(self.offset + self.scale * denoiser(u_t, t, **kwargs).mean)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        batch: int = BATCH,
        progress: Callable[[float], None] = lambda samples: None,
        **sampler: Any,
    ) -> Tensor:
        """Draws samples of the prior.

        Arguments:
            n: The number of samples.
            seed: The seed. The same seed, batch and kind of device give the same samples.
            batch: How many are drawn at once.
            progress: Called with the number of samples that a step has brought nearer.
            sampler: Keys of the config's ``sampler`` that differ from the E-step's which made
                the prior: ``name``, ``steps``, ``spacing``, ...

        Returns:
            The samples, of shape ``(n, *event)``.
        """
        return torch.cat(
            list(self.samples(n, seed=seed, batch=batch, progress=progress, **sampler))
        )

    def samples(
        self,
        n: int,
        *,
        seed: int = 0,
        batch: int = BATCH,
        progress: Callable[[float], None] = lambda samples: None,
        **sampler: Any,
    ) -> Iterator[Tensor]:
        """Yields the samples of :meth:`sample` batch by batch, as more than memory holds need."""
        _check_counts(n=n, batch=batch)
        walk = self.posterior_sampler(sampler=sampler).sampler
        for number, start in enumerate(range(0, n, batch)):
            yield self._batch(number, min(batch, n - start), walk, seed, progress)

    def _batch(
        self,
        number: int,
        count: int,
        walk: Sampler,
        seed: int,
        progress: Callable[[float], None],
    ) -> Tensor:
        """Draws a batch of :meth:`samples`, which has a stream of its own."""
        generator = torch_generator(seed, Stage.PRIOR, 0, number, self.device)
        step = partial(progress, count / walk.steps)
        u = sample_prior(self._prior, count, walk, generator, step)
        if self.exact:
            progress(count)
        return self.offset + self.scale * u

    def posterior(
        self,
        y: Tensor | np.ndarray,
        operator: Operator,
        sigma_y: float | Tensor | np.ndarray,
        n: int = 1,
        *,
        seed: int = 0,
        batch: int = BATCH,
        block: int = 0,
        progress: Callable[[float], None] = lambda samples: None,
        **e_step: Any,
    ) -> Tensor:
        r"""Draws samples of ``p(x | y)`` for observations ``y = A x + n``.

        Arguments:
            y: The observations, of shape ``(B, *observation)``.
            operator: The forward operators, one an observation or one for all, see
                :func:`diem.operators.build`.
            sigma_y: The noise's standard deviation, a scalar or broadcastable to ``y``.
            n: The number of samples of each observation.
            seed: The seed. The same seed, batch and kind of device give the same samples.
            batch: How many samples are drawn at once.
            block: Which part of a larger set of observations this is; each has its own stream.
            progress: Called with the number of samples that a step has brought nearer.
            e_step: Keys of the config's ``e_step`` that differ from those which made the prior:
                ``sampler``, ``covariance``, ``iterations``, ``limit``, ...

        Returns:
            The samples, of shape ``(B, n, *event)``.

        Raises:
            DiemError: If the observations do not fit the operator, or the operator the prior.
        """
        _check_counts(n=n, batch=batch)
        draw = self.posterior_sampler(**e_step)
        observed = self._observed(y, operator, sigma_y)
        total, parts = len(observed.y) * n, []
        for number, start in enumerate(range(0, total, batch)):
            # Consecutive chains belong to the same observation, so that few fill a batch too.
            rows = torch.arange(start, min(start + batch, total), device=self.device) // n
            some = rows_of(observed, rows)
            generator = torch_generator(seed, Stage.TEST_POSTERIOR, block, number, self.device)
            step = partial(progress, len(rows) / draw.sampler.steps)
            x = draw(self._prior, some.operator, some.y, some.sigma_y, generator, step_done=step)
            if self.exact:
                progress(len(rows))
            parts.append(x)
        x = torch.cat(parts)
        if not torch.isfinite(x).all():
            raise DiemError(
                "The posterior samples are not finite: the noise levels of the prior and sigma_y do"
                " not fit each other, or the sampler has too few steps."
            )
        return (self.offset + self.scale * x).unflatten(0, (len(observed.y), n))

    def posterior_sampler(self, **e_step: Any) -> PosteriorSampler:
        """Returns the posterior sampler that made the prior, with some keys changed.

        Arguments:
            e_step: Keys of the config's ``e_step``; ``sampler`` is changed key by key.

        Raises:
            DiemError: If a key is unknown.
        """
        _check_keys(e_step, (field.name for field in fields(PosteriorSampler)), "e_step")
        _check_keys(e_step.get("sampler", {}), (field.name for field in fields(Sampler)), "sampler")
        # Another machine may hold other batches, and need not be able to compile.
        made = {**self.card.get("e_step", {"sampler": {}}), "batch": None, "compile": False}
        sampler = PosteriorSampler.from_config(merge(made, e_step))
        for value, known, key in (
            (sampler.sampler.name, SAMPLERS, "sampler.name"),
            (sampler.sampler.spacing, SPACINGS, "sampler.spacing"),
            (sampler.covariance, COVARIANCES, "covariance"),
            (sampler.precision, PRECISIONS, "precision"),
        ):
            if value not in known:
                raise DiemError(f"{key} is {value!r}, which is unknown{nearest(value, known)}.")
        _check_counts(steps=sampler.sampler.steps, iterations=sampler.iterations)
        return sampler

    def _observed(
        self, y: Tensor | np.ndarray, operator: Operator, sigma_y: float | Tensor | np.ndarray
    ) -> Observed:
        """Returns observations in the network's units, if all of them fit each other."""
        y = torch.as_tensor(y).to(self._mean)
        sigma_y = torch.as_tensor(sigma_y).to(self._mean)
        if operator.event_shape != self.event_shape:
            raise DiemError(
                f"operator: it observes data of shape {operator.event_shape}, and the prior's have"
                f" shape {self.event_shape}."
            )
        operator.check()
        if y.ndim == 0 or tuple(y.shape[1:]) != operator.observation_shape:
            raise DiemError(
                f"y has shape {tuple(y.shape)}, where observations of shape"
                f" {operator.observation_shape} are expected, one a row."
            )
        if len(y) == 0 or len(operator) not in (1, len(y)):
            raise DiemError(
                f"y holds {len(y)} observations, and there are {len(operator)} operators."
            )
        if not torch.isfinite(y).all():
            raise DiemError("y holds non-finite values.")
        if not (torch.isfinite(sigma_y) & (sigma_y > 0)).all():
            raise DiemError("sigma_y must be positive.")
        try:
            sigma_y.expand(y.shape)
        except RuntimeError:
            raise DiemError(
                f"sigma_y has shape {tuple(sigma_y.shape)}, which does not broadcast to that of y,"
                f" {tuple(y.shape)}."
            ) from None
        observed = Observed(operator.to(self.device), y, sigma_y, np.arange(len(y)))
        return observed.scaled(self.offset, self.scale)


def rows_of(observed: Observed, rows: Tensor) -> Observed:
    """Returns some observations, of which one operator or noise may serve all.

    Arguments:
        observed: The observations.
        rows: Which of them, of shape ``(B,)``, on their device; the same one several times, if need
            be.
    """
    y, sigma_y = observed.y, noise_of(observed.sigma_y, observed.y, rows)
    return Observed(observed.operator[rows], y[rows], sigma_y, observed.index[rows.cpu().numpy()])


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise DiemError(f"{name} is {count}, and must be at least 1.")


def _check_keys(entry: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in entry:
        if key not in known:
            raise DiemError(f"{where}.{key} is unknown{nearest(key, known)}.")


def write_samples(
    output: str | Path,
    prior: PriorDenoiser,
    n: int,
    *,
    seed: int = 0,
    batch: int = BATCH,
    pieces: Pieces | None = None,
    progress: Callable[[float], None] = lambda samples: None,
    **sampler: Any,
) -> None:
    """Writes samples of a prior to an HDF5 file: ``x``, of shape ``(n, *event)``, and its card.

    A batch is a piece of the work: an interrupted run goes on with the next and writes the same
    bytes.

    Arguments:
        output: The HDF5 file to write.
        prior: The prior.
        n: The number of samples.
        seed: The seed.
        batch: How many are drawn at once.
        pieces: What an earlier attempt has sampled; without it, all samples are in memory.
        progress: Called with the number of samples that a step has brought nearer.
        sampler: As for :meth:`PriorDenoiser.sample`.
    """
    _check_counts(n=n, batch=batch)
    pieces = pieces or Pieces()
    draw = prior.posterior_sampler(sampler=sampler)
    counts = [min(batch, n - start) for start in range(0, n, batch)]

    def piece(number: int) -> np.ndarray:
        make = partial(prior._batch, number, counts[number], draw.sampler, seed, progress)
        return cached_tensor(pieces, str(number), make).numpy()

    for number, count in enumerate(counts):
        if str(number) in pieces:
            progress(count)
        piece(number)
    card = {**_card(prior, draw, seed, batch), "samples": n}
    write_hdf5(output, {"x": map(piece, range(len(counts)))}, card)


def write_posteriors(
    output: str | Path,
    prior: PriorDenoiser,
    observations: Observations,
    n: int,
    *,
    seed: int = 0,
    batch: int = BATCH,
    pieces: Pieces | None = None,
    progress: Callable[[float], None] = lambda samples: None,
    **e_step: Any,
) -> None:
    """Writes posterior samples of every observation of a file, their mean and standard deviation.

    Each split of the file becomes a group with ``x`` ``(N, n, *event)``, ``mean`` and ``sd`` ``(N,
    *event)``, and ``index``, the observations' own. Some observations at a time are sampled, which
    are a piece of the work: an interrupted run goes on with the next and gives the same numbers.

    Arguments:
        output: The HDF5 file to write.
        prior: The prior.
        observations: The observations.
        n: The number of samples of each observation, at least 2.
        seed: The seed.
        batch: How many samples are drawn at once.
        pieces: What an earlier attempt has sampled; without it, all samples are in memory.
        progress: Called with the number of samples that a step has brought nearer.
        e_step: As for :meth:`PriorDenoiser.posterior`.

    Raises:
        DiemError: If the observations do not fit the prior, or samples are not finite.
    """
    _check_counts(batch=batch)
    if n < 2:
        raise DiemError(f"n is {n}, and a standard deviation needs at least 2 samples.")
    if observations.has_attribute("scale") and (prior.offset, prior.scale) != (0, 1):
        raise DiemError(
            f"{observations.path}: its y are already scaled to train on; posteriors are of the file"
            f" that it was made from, {observations.attribute('source')}."
        )
    began = time.monotonic()
    pieces = pieces or Pieces()
    counts = {split: observations.count(split) for split in observations.splits()}
    todo = list(enumerate(blocks(counts, max(1, batch // n))))

    def sample(number: int, split: str, rows: slice) -> dict[str, np.ndarray]:
        some = observations.load(split, rows)
        x = prior.posterior(
            *(some.y, some.operator, some.sigma_y, n),
            seed=seed,
            batch=batch,
            block=number,
            progress=progress,
            **e_step,
        )
        sd, mean = torch.std_mean(x, dim=1)
        arrays = {"x": x, "mean": mean, "sd": sd}
        arrays = {name: value.cpu().numpy() for name, value in arrays.items()}
        return {**arrays, "index": some.index}

    def piece(number: int, split: str, rows: slice) -> Mapping[str, np.ndarray]:
        return pieces(str(number), partial(sample, number, split, rows))

    for number, (split, rows) in todo:
        if str(number) in pieces:
            progress(n * (rows.stop - rows.start))
        piece(number, split, rows)

    def parts(split: str, name: str) -> Iterator[np.ndarray]:
        for number, (of, rows) in todo:
            if of == split:
                yield piece(number, of, rows)[name]

    names = [(split, name) for split in counts for name in ("x", "mean", "sd", "index")]
    draw = prior.posterior_sampler(**e_step)
    card = _card(prior, draw, seed, batch)
    card["covariance"] = "exact" if prior.exact else draw.covariance
    write_hdf5(
        output,
        {f"{split}/{name}": parts(split, name) for split, name in names},
        {**card, "samples": n, "seconds": time.monotonic() - began},
    )


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
        event: ``y`` with NaN where nothing was observed, if it has the event's shape, or else
        ``adjoint``, :math:`A^\top y`.
    """
    split = observations.splits()[0]
    some = observations.load(split, slice(0, count))
    shape = observations.event_shape
    with Reader(path) as file:
        shown = {
            name: file.read(f"{split}/{name}", slice(0, count)) for name in ("x", "mean", "sd")
        }
    if shown["mean"].shape != (len(some.y), *shape):
        raise DiemError(f"{path}: it holds no posteriors of {observations.path}.")
    if some.operator.observation_shape == shape:
        shown["y"] = torch.where(some.operator.observed(), some.y, torch.nan).numpy()
    else:
        shown["adjoint"] = some.operator.adjoint(some.y).numpy()
    return shown


def _card(prior: PriorDenoiser, draw: PosteriorSampler, seed: int, batch: int) -> dict[str, Any]:
    """Returns the attributes of a file of samples: what made them."""
    exact, sampler = prior.exact, draw.sampler
    return {
        "seed": seed,
        "batch": batch,
        "device": prior.device.type,
        "sampler": "exact" if exact else sampler.name,
        "steps": 0 if exact else sampler.steps,
        "denoiser_evaluations": 0 if exact else sampler.evaluations,
        "precision": "exact" if exact else draw.precision,
        "versions": json.dumps(versions()),
        "prior": json.dumps(prior.card),
    }
