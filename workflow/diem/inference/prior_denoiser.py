r"""A prior in use: samples, and posterior samples of new observations.

:func:`load_prior` (:py:`diem.load_prior`) turns a file of this workflow into an azula denoiser, so
that everything of azula works with it too: samplers, guidance, plugins. It says nothing of how the
prior was made; :attr:`PriorDenoiser.card` does.
"""

import warnings
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

from diem.components import Count, Model, Seed, option, short, validated
from diem.data.observations import Observed, check_noise, numbers, place_of, unit_of_values
from diem.diffusion.gaussian import Gaussian, noise_of
from diem.diffusion.outside import of_card
from diem.diffusion.posterior_sampler import PosteriorSampler, refuse_infinite
from diem.diffusion.prior import CARD_RANGE, Prior, read_prior
from diem.diffusion.samplers import Sampler, sample_prior
from diem.diffusion.solvers import column
from diem.errors import DiemError, nearest
from diem.operators.base import OPERATORS, Operator
from diem.operators.given import Given, given
from diem.operators.partial import Partial
from diem.operators.verify import PROBED, verify_operator
from diem.seeds import Stage, torch_generator

__all__ = [
    "BATCH",
    "OutlierWarning",
    "PriorDenoiser",
    "check_drawing",
    "load_prior",
    "rows_of",
]

EXACT_SCHEDULE = VESchedule(1e-3, 1e2)
"""The schedule of a Gaussian prior, which was trained with none."""

BATCH = 256
"""How many samples are drawn at once, unless it is said."""


def load_prior(path: str | Path, device: str | torch.device = "cpu") -> "PriorDenoiser":
    """Loads a prior, ready to sample.

    Arguments:
        path: A prior that the workflow trained (``prior.safetensors``) or fitted
            (``gaussian.safetensors``), or that ``diem export`` wrote.
        device: The device to sample on.

    Raises:
        DiemError: If the file cannot be read, or holds no prior.
    """
    return PriorDenoiser(read_prior(path)).to(device)


class OutlierWarning(UserWarning):
    """Posterior samples that are far from all that the prior was trained on."""


class PriorDenoiser(Denoiser):
    r"""Creates an azula denoiser of a prior, which draws samples and posterior samples as well.

    Everything is in the units of the observations that the prior was learned from: those of the
    user's file, or in simulated experiments data that span [-2, 2]. What the network needs is
    inside: its preconditioning, and the ``offset`` and ``scale`` of the config's ``data``. The
    schedule is the one that the prior was trained with, in these units too: :math:`x_t = x +
    \sigma_t z`. A Gaussian prior, which no network was trained for, has an exact denoiser, exact
    samples and exact posteriors.

    Where each column or channel has a scale of its own, noise of one :math:`\sigma_t` is not what
    the network knows: samples and posterior samples are as ever, and :attr:`denoiser` is the azula
    denoiser, of ``(x - offset) / scale``; this one is refused.

    Azula's samplers start best from this prior's mean: ``sampler.init((8, *prior.event_shape),
    mean=prior.mean)``.

    Arguments:
        prior: The prior.

    Attributes:
        schedule: The noise schedule; where ``scale`` is a tensor of ``(x - offset) / scale``.
        offset: The value of ``x`` that is 0 to the network; a tensor of the event's shape if each
            column or channel has its own.
        scale: The difference of ``x`` that is 1 to the network, or such a tensor.
        card: What made the prior: data, operator, settings, seed, versions and, of an exported
            prior, its metrics.
    """

    offset: float | Tensor
    scale: float | Tensor

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        for name, value in vars(prior.gaussian).items():
            self.register_buffer(f"_{name}", value)
        self.denoiser = prior.denoiser
        self.card = prior.card
        data = self.card.get("data", {})
        for name, default in (("offset", 0.0), ("scale", 1.0)):
            value = data.get(name, default)
            if isinstance(value, list):
                each = unit_of_values(value, self.event_shape).contiguous()
                self.register_buffer(name, each.to(self._mean))
            else:
                setattr(self, name, value)
        levels = EXACT_SCHEDULE if prior.denoiser is None else prior.denoiser.schedule
        unit = 1.0 if isinstance(self.scale, Tensor) else self.scale
        self.schedule = VESchedule(unit * levels.sigma_min, unit * levels.sigma_max)
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
    def by_column(self) -> bool:
        """Whether each column or channel of ``x`` has an offset or a scale of its own."""
        return isinstance(self.offset, Tensor) or isinstance(self.scale, Tensor)

    @property
    def mean(self) -> Tensor:
        """The mean of ``x``, of the event's shape."""
        return self.offset + self.scale * self._mean

    @property
    def prior(self) -> Prior:
        """The prior in the network's units."""
        gaussian = Gaussian(self._mean, self._noise, self._factors)
        return Prior(gaussian, self.denoiser, self.card)

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        """Returns the mean ``E[x | x_t]``.

        Arguments:
            x_t: A noisy tensor, of shape ``(B, *event)``.
            t: The time, of shape ``()`` or ``(B,)``; of a Gaussian prior ``()``.
            kwargs: Passed to the network.

        Raises:
            DiemError: If each column or channel has a scale.
        """
        if isinstance(self.scale, Tensor):
            inner = "" if self.exact else ", or take `denoiser`, which is of (x - offset) / scale"
            raise DiemError(
                f"The prior was learned with a scale of each {place_of(self.event_shape)}"
                " (data.scale), and noise of one"
                f" sigma does not fit them: draw with `sample` and `posterior`{inner}."
            )
        u_t, prior = (x_t - self.offset) / self.scale, self.prior
        denoiser = self.denoiser or prior.gaussian.denoiser(EXACT_SCHEDULE)
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
            sampler: Keys of the config's ``sampler`` that take the place of the default's, which
                is the E-step's of 32 steps or more: ``name``, ``steps``, ``spacing``, ...

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
        n, batch, seed = check_drawing(n=n, batch=batch, seed=seed)
        reverse = self.posterior_sampler(sampler=sampler).sampler
        for number, start in enumerate(range(0, n, batch)):
            yield self.draw_batch(number, min(batch, n - start), reverse, seed, progress)

    def draw_batch(
        self,
        number: int,
        count: int,
        sampler: Sampler,
        seed: int,
        progress: Callable[[float], None] = lambda samples: None,
    ) -> Tensor:
        """Draws a batch of :meth:`samples`, which has a stream of its own.

        Arguments:
            number: The number of the batch, from 0.
            count: The number of samples in it.
            sampler: The reverse sampler.
            seed: The seed.
            progress: Called with the number of samples that a step has brought nearer.

        Returns:
            The samples, of shape ``(count, *event)``.
        """
        generator = torch_generator(seed, Stage.PRIOR, 0, number, self.device)
        step = partial(progress, count / sampler.steps)
        u = sample_prior(self.prior, count, sampler, generator, step)
        if not torch.isfinite(u).all():
            raise DiemError("The samples are not finite: the sampler has too few steps, or others.")
        if self.exact:
            progress(count)
        return self.offset + self.scale * u

    def posterior(
        self,
        y: Tensor | np.ndarray,
        operator: Given,
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

        Samples whose values are far from all that the prior was trained on, as those of chains that
        blow up, are told by a warning; :meth:`outlying` tells which they are.

        Arguments:
            y: The observations, of shape ``(B, *observation)``; NaN is missing, and its noise may
                be NaN.
            operator: The forward operators, one an observation or one for all: an object, as of
                :func:`diem.operators.build`, or what :func:`diem.operators.given.given` takes for
                one: a name, a mapping, or a linear function.
            sigma_y: The noise's standard deviation, a scalar, one an observation ``(B,)``, one a
                value ``(*observation)``, or broadcastable to ``y``.
            n: The number of samples of each observation.
            seed: The seed. The same seed, batch and kind of device give the same samples.
            batch: How many samples are drawn at once.
            block: Which part of a larger set of observations this is; each has its own stream.
            progress: Called with the number of samples that a step has brought nearer.
            e_step: Keys of the config's ``e_step`` that take the place of the default's, see
                :mod:`diem.diffusion.outside`: ``sampler``, ``covariance``, ``iterations``,
                ``limit``, ...

        Returns:
            The samples, of shape ``(B, n, *event)``.

        Raises:
            DiemError: If the observations do not fit the operator, or the operator the prior.
        """
        n, batch, seed = check_drawing(n=n, batch=batch, seed=seed)
        draw = self.posterior_sampler(**e_step)
        observed = self._observed(y, operator, sigma_y)
        total, parts = len(observed.y) * n, []
        for number, start in enumerate(range(0, total, batch)):
            # Consecutive chains belong to the same observation, so that few fill a batch too.
            rows = torch.arange(start, min(start + batch, total), device=self.device) // n
            repeated = rows_of(observed, rows)
            generator = torch_generator(seed, Stage.TEST_POSTERIOR, block, number, self.device)
            step = partial(progress, len(rows) / draw.sampler.steps)
            x = draw(
                *(self.prior, repeated.operator, repeated.y, repeated.sigma_y, generator),
                step_done=step,
            )
            if self.exact:
                progress(len(rows))
            parts.append(x)
        x = torch.cat(parts)
        refuse_infinite(x)
        x = (self.offset + self.scale * x).unflatten(0, (len(observed.y), n))
        if count := int(self.outlying(x).sum()):
            warnings.warn(self.outliers_told(count, total), OutlierWarning, stacklevel=2)
        return x

    def outlying(self, x: Tensor) -> Tensor:
        """Returns which samples are outliers, see :meth:`diem.diffusion.prior.Prior.outlying`.

        Arguments:
            x: The samples, of shape ``(*, *event)``.
        """
        return self.prior.outlying((x - self.offset) / self.scale)

    def outliers_told(self, count: int, total: int) -> str:
        """Returns a sentence that tells how many of some posterior samples are outliers."""
        low, high = self.card[CARD_RANGE]
        what = "values of (x - offset) / scale" if self.by_column else "values"
        if not self.by_column:
            low, high = (self.offset + self.scale * v for v in (low, high))
        return (
            f"{count} of {total} posterior samples have {what} far outside of {low:.3g} to"
            f" {high:.3g}, where the prior's lie: their chains blew up. Take more steps (sampler)"
            " or a lower limit, and look whether operator and sigma_y are right."
        )

    def posterior_sampler(self, **e_step: Any) -> PosteriorSampler:
        """Returns the sampler of posteriors, see :mod:`diem.diffusion.outside`.

        Arguments:
            e_step: Keys of the config's ``e_step`` that take the place of the default's;
                ``sampler`` is changed key by key.

        Raises:
            DiemError: If a key is unknown or out of bounds.
        """
        _check_keys(e_step, (field.name for field in fields(PosteriorSampler)), "e_step")
        if not isinstance(e_step.get("sampler", {}), str | Mapping):
            raise DiemError(
                f"sampler is {short(e_step['sampler'])}, where a name or a mapping of what is to be"
                " otherwise is needed."
            )
        # Another machine may hold other batches, and need not be able to compile.
        portable = {"batch": None, "compile": False}
        return PosteriorSampler.from_config(of_card(self.card, {**portable, **e_step}))

    def _observed(
        self, y: Tensor | np.ndarray, operator: Given, sigma_y: float | Tensor | np.ndarray
    ) -> Observed:
        """Returns observations in the network's units, if all of them fit each other."""
        y = torch.tensor(numbers(y, "y")).to(self._mean)
        sigma_y = torch.tensor(numbers(sigma_y, "sigma_y")).to(self._mean)
        if not isinstance(operator, Operator):
            operator = given(operator, y, self.event_shape).to(self.device)
        if operator.event_shape != self.event_shape:
            raise DiemError(
                f"operator: it observes data of shape {operator.event_shape}, and the prior's have"
                f" shape {self.event_shape}."
            )
        operator.check()
        if type(operator) not in map(OPERATORS.find, OPERATORS.names):
            verify_operator(operator[:PROBED], type(operator).__name__)
        if y.ndim == 0 or tuple(y.shape[1:]) != operator.observation_shape:
            raise DiemError(
                f"y has shape {tuple(y.shape)}, where observations of shape"
                f" {operator.observation_shape} are expected, one a row."
            )
        if len(y) == 0 or len(operator) not in (1, len(y)):
            raise DiemError(
                f"y holds {len(y)} observations, and there are {len(operator)} operators."
            )
        if torch.isinf(y).any():
            raise DiemError("y holds infinite values.")
        operator = operator.to(self.device)
        if (missing := torch.isnan(y)).any():
            operator, y = Partial(operator, ~missing), y.nan_to_num()
        sigma_y = _one_a_row(sigma_y, y)
        try:
            if sigma_y.isnan().any():
                blank = sigma_y.isnan() & ~operator.observed()
                sigma_y = torch.where(blank, 1.0, sigma_y.expand(y.shape))
            sigma_y.expand(y.shape)
        except RuntimeError:
            raise DiemError(
                f"sigma_y has shape {tuple(sigma_y.shape)}, which does not broadcast to that of y,"
                f" {tuple(y.shape)}."
            ) from None
        check_noise(sigma_y.cpu().numpy(), "sigma_y")
        observed = Observed(operator, y, sigma_y, np.arange(len(y)))
        return observed.scaled(self.offset, self.scale)


def _one_a_row(sigma_y: Tensor, y: Tensor) -> Tensor:
    """Returns noise of shape ``(B,)``, which is one number an observation as in files, so shaped.

    Raises:
        DiemError: If it could as well be one number a value.
    """
    if sigma_y.ndim != 1 or len(sigma_y) != len(y) or len(y) == 1:
        return sigma_y
    if tuple(sigma_y.shape) == tuple(y.shape[1:]):
        raise DiemError(
            f"sigma_y has shape {tuple(sigma_y.shape)}, one number an observation or one a value:"
            f" say which by the shape ({len(y)}, 1) or (1, {len(y)})."
        )
    return column(sigma_y, y)


def rows_of(observed: Observed, rows: Tensor) -> Observed:
    """Returns some observations, of which one operator or noise may serve all.

    Arguments:
        observed: The observations.
        rows: Which of them, of shape ``(B,)``, on their device; the same one several times, if need
            be.
    """
    y = observed.y
    sigma_y = torch.as_tensor(noise_of(observed.sigma_y, y, rows))
    return Observed(observed.operator[rows], y[rows], sigma_y, observed.index[rows.cpu().numpy()])


class Drawing(Model):
    """What is drawn."""

    n: Count = option(1, "the number of samples")
    batch: Count = option(BATCH, "how many are drawn at once")
    seed: Seed = option(0, "the seed")


def check_drawing(**options: Any) -> list[int]:
    """Returns some options of :class:`Drawing` as integers.

    Raises:
        DiemError: If one is none, or out of its bounds; the sentence names it.
    """
    for name, value in options.items():
        if isinstance(value, np.integer):
            options[name] = int(value)
    drawing = validated(Drawing, options, "")
    return [getattr(drawing, name) for name in options]


def _check_keys(entry: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in entry:
        if key not in known:
            raise DiemError(f"{where}.{key} is unknown{nearest(key, known)}.")
