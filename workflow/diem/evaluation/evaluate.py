"""Evaluation of a prior: what is drawn of it, and the numbers that metrics make of that.

Samples are gone through part by part: prior samples stay where the pieces of the work are kept, and
those of files are held in memory only if they fit. The parts, and so the numbers, are the same.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat, TypeVar

import numpy as np
import torch
from torch import Tensor

from diem.data.observations import SPLITS, Observations, Observed
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers import SAMPLERS, Sampler
from diem.errors import DiemError
from diem.evaluation.draws import Blocks, Posteriors, prior_samples, sampler_card
from diem.evaluation.metrics import METRICS
from diem.evaluation.metrics.base import SUBJECTS, Measurement, Metric
from diem.evaluation.rows import metric_rows
from diem.files.hdf5 import HasRows, Reader, Rows, row_parts
from diem.jobs.job import Job
from diem.seeds import Stage, subset

__all__ = ["Evaluation", "Posterior", "Samples", "evaluate", "posterior_arrays", "read_truth"]

T = TypeVar("T")


class Samples(NamedTuple):
    """Many samples.

    Attributes:
        subject: Whether they are the ``prior``'s or the ``e_step``'s, which it was trained on.
        x: The samples, of shape ``(N, *event)``, which need not be in memory.
        card: What made them.
    """

    subject: str
    x: HasRows
    card: Mapping[str, Any]


class Posterior(NamedTuple):
    """Posterior samples of some test observations.

    Attributes:
        x: The samples, of shape ``(observations, draws, *event)``.
        observed: The observations.
        card: What made the samples.
    """

    x: Tensor
    observed: Observed
    card: Mapping[str, Any]


@dataclass(eq=False)
class Evaluation:
    """A prior under evaluation: what metrics may ask for, drawn or read when it is first needed.

    Arguments:
        prior: The prior, on the device to use.
        observations: The observations, whose test split the prior has never seen.
        sampler: The sampler of the posteriors.
        settings: The config's ``evaluation`` entry.
        data: The config's ``data`` entry.
        files: Files by name: ``clean``, the clean data, if there are any, ``samples``, the file
            of the samples that the prior was trained on, if any, and the inputs of metrics.
        job: The job.

    Attributes:
        arrays: What metrics leave for figures, by name.
    """

    prior: Prior
    observations: Observations
    sampler: PosteriorSampler
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    files: Mapping[str, Any]
    job: Job

    def __post_init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._loaded: dict[tuple, Any] = {}
        self._rows: dict[str, Rows] = {}
        self._opened = contextlib.ExitStack()

    @property
    def device(self) -> torch.device:
        """The device to compute on."""
        return self.prior.gaussian.mean.device

    def file(self, name: str) -> Any:
        """Returns the path of a file.

        Raises:
            DiemError: If there is no such file.
        """
        if self.files.get(name) is None:
            raise DiemError(f"evaluation.metrics: one needs {name!r}, and there is none.")
        return self.files[name]

    def once(self, load: Callable[..., T], *arguments: Any) -> T:
        """Returns what a function of some arguments loads, which several metrics may ask for."""
        key = (load, *arguments)
        if key not in self._loaded:
            self._loaded[key] = load(*arguments)
        return self._loaded[key]

    @cached_property
    def x(self) -> Blocks:
        """The samples of the prior."""
        return prior_samples(self.prior, self._sampler, self.settings, self.job)

    @property
    def _sampler(self) -> Sampler:
        return SAMPLERS.parse(self.settings["sampler"])

    @property
    def card(self) -> dict[str, Any]:
        """What made the samples of the prior."""
        sampled = sampler_card(self.prior, self._sampler)
        return {"samples": len(self.x), "split": "none", **sampled}

    @property
    def samples(self) -> list[Samples]:
        """Many samples: the prior's and, if there are any, those that it was trained on."""
        drawn = [Samples("prior", self.x, self.card)]
        shards = self.files.get("samples")
        if not shards:
            return drawn
        trained = self._read("e_step", shards, "train/x")
        names = ("sampler", "denoiser_evaluations", "precision")
        with Reader(shards[0]) as file:
            sampled = {name: file.attribute(name) for name in names}
            sampled["sampler_steps"] = file.attribute("steps")
            repeats = file.attribute("repeats", default=1)
        # One of each observation, which come first: distances of more samples are less.
        trained.keep(np.arange(len(trained)) < trained.total // repeats)
        card = {"samples": len(trained), "split": "train", **sampled}
        return [*drawn, Samples("e_step", trained, card)]

    @property
    def test(self) -> Rows:
        """The clean test split, which need not be in memory."""
        return self._read("test", [self.file("clean")], "test/x")

    @property
    def train(self) -> Rows:
        """The clean training split, which only ceilings see; it need not be in memory."""
        return self._read("train", [self.file("clean")], "train/x")

    def _read(self, key: str, paths: Iterable[str | Path], name: str) -> Rows:
        if key not in self._rows:
            shape, cache_mb = self.prior.event_shape, self.job.cache_mb
            self._rows[key] = self._opened.enter_context(Rows([*paths], name, shape, cache_mb))
        return self._rows[key]

    def some(self, x: HasRows, count: int) -> np.ndarray | Tensor:
        """Returns some samples, at most so many, that stand for all: those of files are in order.

        Arguments:
            x: The samples, of shape ``(N, *event)``: the prior's, which are independent, or a
                file's.
            count: How many.
        """
        if isinstance(x, Rows):
            return x[subset(len(x), count, self.job.seed, SPLITS.index("test"))]
        return x[:count]

    def close(self) -> None:
        """Closes the files of samples, and forgets those that are held; more can be asked for."""
        self._rows = {}
        self._opened.close()

    @property
    def posteriors(self) -> Posteriors:
        """What draws posterior samples."""
        count = self.settings["posterior_samples"]
        return Posteriors(self.prior, self.sampler, count, self.job)

    @cached_property
    def posterior(self) -> Posterior:
        """The posterior samples of some test observations."""
        observed = some_observations(self.observations, self.settings, self.job.seed)
        x = self.posteriors.draw(observed, "posterior", Stage.TEST_POSTERIOR)
        return Posterior(x, observed, self.posteriors.card(len(x)))

    @cached_property
    def groups(self) -> np.ndarray | None:
        """The groups of these test observations, if they form groups."""
        return groups_of(self.observations, self.settings, self.job.seed)

    @cached_property
    def truth(self) -> Tensor:
        """What these test observations are of."""
        return read_truth(self.file("clean"), self.posterior.observed, self.prior)


def evaluate(
    evaluation: Evaluation, card: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray | Iterable[np.ndarray]]]:
    """Draws samples of a prior and of its posteriors, and has the wanted metrics measure them.

    Arguments:
        evaluation: The prior, and what it is compared with.
        card: The part of the rows' card that the caller knows: experiment, run, stage, lap, ...

    Returns:
        The rows, and the arrays that figures are made of: ``prior/x`` (consecutive parts, which can
        be read once), of vectors ``e_step/x``, as many of the samples that it was trained on, if
        there are any, what metrics leave, and of some test observations ``posterior/x``
        ``(observations, samples, *event)``, ``posterior/y``, ``posterior/observed``,
        ``posterior/adjoint`` (``A' y``) and, if there are clean data, ``posterior/truth``.
    """
    metrics = [METRICS.parse(entry) for entry in evaluation.settings["metrics"]]
    samples, rows = evaluation.x, []
    for subject in SUBJECTS:
        with contextlib.closing(evaluation):
            for metric in (metric for metric in metrics if metric.subject == subject):
                measurements = _measured(metric, evaluation)
                rows += metric_rows(metric.name, measurements, card, evaluation.job.seed)
    posterior = evaluation.posterior
    truth = None if evaluation.files.get("clean") is None else evaluation.truth
    arrays = posterior_arrays(posterior.x, posterior.observed, truth)
    with contextlib.closing(evaluation):
        arrays |= _trained_arrays(evaluation)
    return rows, {"prior/x": map(np.asarray, row_parts(samples)), **evaluation.arrays, **arrays}


def _trained_arrays(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Returns of vectors the samples that the prior was trained on, as many as of the prior."""
    if len(evaluation.prior.event_shape) != 1:
        return {}
    count = len(evaluation.x)
    trained = evaluation.samples[1:]
    return {f"{s.subject}/x": np.asarray(evaluation.some(s.x, count)) for s in trained}


def _measured(metric: Metric, evaluation: Evaluation) -> Iterable[Measurement]:
    """Returns what a metric measures; one number alone is that of the metric's subject."""
    measured = metric.measure(evaluation)
    if not isinstance(measured, SupportsFloat):
        return measured
    if metric.subject == "samples":
        return [Measurement(float(measured), "prior", evaluation.card)]
    return [Measurement(float(measured), "posterior", evaluation.posterior.card)]


def some_observations(
    observations: Observations, settings: Mapping[str, Any], seed: int
) -> Observed:
    """Returns the test observations that are sampled, the same for every prior."""
    rows = observations.subset("test", settings["test_observations"], seed)
    return observations.load("test", rows)


def groups_of(
    observations: Observations, settings: Mapping[str, Any], seed: int
) -> np.ndarray | None:
    """Returns the groups of the test observations that are sampled, if they form groups."""
    groups = observations.groups("test")
    rows = observations.subset("test", settings["test_observations"], seed)
    return None if groups is None else groups[rows]


def read_truth(clean: str | Path, observed: Observed, prior: Prior) -> Tensor:
    """Returns what test observations are of, by their index."""
    with Reader(clean) as file:
        return torch.from_numpy(file.read("test/x", observed.index, prior.event_shape))


def posterior_arrays(
    posterior: Tensor, observed: Observed, truth: Tensor | None
) -> dict[str, np.ndarray]:
    """Returns the arrays of posterior samples that figures are made of."""
    arrays = {
        "x": posterior,
        "y": observed.y,
        "observed": observed.operator.observed().expand_as(observed.y),
        "adjoint": observed.operator.adjoint(observed.y),
    }
    if truth is not None:
        arrays["truth"] = truth
    return {f"posterior/{name}": value.numpy() for name, value in arrays.items()}
