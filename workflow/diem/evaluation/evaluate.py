"""Evaluation of a prior: samples, the metrics of an experiment, and the card of each number.

Samples are gone through part by part: prior samples stay where the pieces of the work are kept, and
those of files are held in memory only if they fit. The parts, and so the numbers, are the same.

A row is one number with everything that made it. Tables and figures are built from rows alone.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diem import __version__
from diem.data.observations import Observations, Observed
from diem.data.sets import DATASETS
from diem.diffusion.denoisers import Prior
from diem.em.e_step import PosteriorSampler, Sampler, sample_prior
from diem.errors import DiemError
from diem.evaluation import inception, metrics
from diem.files.hdf5 import HasRows, Reader, Rows, row_parts
from diem.jobs.resume import Keep, Pieces, cached_number, cached_tensor, no_cache, prefixed
from diem.operators.partial import Partial
from diem.seeds import Stage, torch_generator

__all__ = ["CARD", "evaluate", "reconstruct"]

CARD = (
    "experiment",
    "run",
    "observations",
    "stage",
    "lap",
    "subject",
    "metric",
    "value",
    "split",
    "samples",
    "reference",
    "reference_samples",
    "extractor",
    "extractor_digest",
    "extractor_accuracy",
    "sampler",
    "sampler_steps",
    "denoiser_evaluations",
    "precision",
    "optimizer_steps",
    "seed",
    "diem",
    "torch",
)
"""The columns of a row, in order.

``stage`` is ``floor`` (the fitted Gaussian), ``lap`` or ``ceiling`` (the same network trained on
clean data). ``subject`` says what was measured: ``prior`` (unconditional samples), ``e_step`` (the
posterior samples that the prior was trained on, drawn by the lap before), ``posterior`` (posterior
samples of test observations), ``posterior_mean`` (their mean) or ``adjoint`` (``A' y``, which needs
no prior and has no stage).
"""


OF_SAMPLES = {
    "sliced_wasserstein",
    "sinkhorn_divergence",
    "frechet_distance",
    "fid",
    "inception_score",
    "distance_to_manifold",
}
"""The metrics of many samples and the whole test split, which is read only for them."""

CURVE_POINTS = 2**14
"""Points of the polyline that stands for the manifold; distances are to its segments."""


@dataclass(frozen=True)
class _Rows:
    """Collects rows that share a part of their card."""

    shared: Mapping[str, Any]
    rows: list[dict[str, Any]]

    def add(self, subject: str, metric: str, value: float, **card: Any) -> None:
        row = {**self.shared, "subject": subject, "metric": metric, "value": float(value), **card}
        self.rows.append({key: row.get(key, "") for key in CARD})


class _Blocks:
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


def evaluate(
    prior: Prior,
    observations: Observations,
    clean: str | Path | None,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    posterior_sampler: PosteriorSampler,
    seed: int,
    card: Mapping[str, Any],
    e_step_samples: Sequence[str | Path] = (),
    extractor: str | Path | None = None,
    inception_weights: str | Path | None = None,
    inception_reference: str | Path | None = None,
    keep: Keep | None = None,
    progress: Callable[[int], None] = lambda count: None,
    cache_mb: float = math.inf,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray | Iterable[np.ndarray]]]:
    """Draws samples of a prior and of its posteriors, and measures them.

    Arguments:
        prior: The prior, on the device to use.
        observations: The observations, whose test split the prior has never seen.
        clean: The file of clean data, whose test split is the reference; or none, and then only
            metrics in the space of observations can be asked for.
        data: The config's ``data`` entry.
        settings: The config's ``evaluation`` entry.
        posterior_sampler: The sampler of the posteriors.
        seed: The config's seed.
        card: The part of the card that the caller knows: experiment, run, stage, lap, ...
        e_step_samples: The shards of the samples that the prior was trained on, if any.
        extractor: The file of the feature extractor of ``frechet_distance``.
        inception_weights: The file of the weights of ``fid`` and ``inception_score``.
        inception_reference: The file of the reference of ``fid``.
        keep: Makes the pieces of the work that were not kept, see :mod:`diem.jobs.resume`, and gives
            them again whenever they are needed. Without it, they are in memory.
        progress: Called with the number of samples drawn.
        cache_mb: The most memory, in MiB, that the test split may take, and the samples of the
            E-step; more are read from the disk as they are needed, which changes no number.

    Returns:
        The rows, and the arrays that figures are made of: ``prior/x`` (consecutive parts, which can
        be read once), ``prediction/score`` of each test observation of which something was hidden,
        if it is asked for, and of the first test observations ``posterior/x``
        ``(observations, samples, *event)``, ``posterior/y``, ``posterior/observed``,
        ``posterior/adjoint`` (``A' y``) and, if there are clean data, ``posterior/truth``.
    """
    sampler = Sampler(**settings["sampler"])
    wanted = settings["metrics"]
    exact = prior.denoiser is None
    rows = _Rows({**card, "seed": seed, "diem": __version__, "torch": torch.__version__}, [])
    keep = Pieces() if keep is None else keep

    x = _prior_samples(prior, settings, sampler, seed, keep, progress)
    drawn = {
        "sampler": "exact" if exact else sampler.name,
        "sampler_steps": 0 if exact else sampler.steps,
        "denoiser_evaluations": 0 if exact else sampler.evaluations,
        "precision": "exact" if exact else "float32",
    }
    if clean is not None and not OF_SAMPLES.isdisjoint(wanted):
        subjects = {"prior": (x, {"samples": len(x), "split": "none", **drawn})}
        with contextlib.ExitStack() as opened:
            stored = partial(Rows, shape=prior.event_shape, cache_mb=cache_mb)
            test = opened.enter_context(stored([clean], "test/x"))
            if e_step_samples:
                trained = opened.enter_context(stored(e_step_samples, "train/x"))
                with Reader(e_step_samples[0]) as file:
                    names = ("sampler", "denoiser_evaluations", "precision")
                    made = {name: file.attribute(name) for name in names}
                    made["sampler_steps"] = file.attribute("steps")
                here = {"samples": len(trained), "split": "train", **made}
                subjects["e_step"] = (trained, here)
            _compare(
                rows,
                subjects,
                test,
                data,
                settings,
                seed,
                extractor,
                inception_weights,
                inception_reference,
                prior.gaussian.mean.device,
                keep,
            )

    arrays = {"prior/x": row_parts(x)}
    if "prediction" in wanted:
        scores = _prediction_scores(
            prior, observations, settings, posterior_sampler, seed, keep, progress
        )
        arrays["prediction/score"] = scores.numpy()
        card = {
            **_posterior_card(prior, posterior_sampler, scores[:, None]),
            "samples": len(scores) * settings["posterior_samples"],
            "reference": "hidden half of test observations",
            "reference_samples": len(scores),
        }
        rows.add("posterior", "prediction", scores.mean(), **card)
    if "observation_distance" in wanted:
        value, count = _observation_distance(x, observations, settings["block"], seed)
        card = {**drawn, "samples": count, "split": "test", "reference": "held-out observations"}
        rows.add("prior", "observation_distance", value, **card, reference_samples=count)

    posterior, observed = _posterior_samples(
        prior, observations, settings, posterior_sampler, seed, keep, progress
    )
    truth = None if clean is None else _truth(clean, len(posterior), prior.event_shape)
    here = _posterior_card(prior, posterior_sampler, posterior)
    if truth is not None:
        _add_fidelity(rows, "posterior", posterior, truth, wanted, here)
        _add_fidelity(rows, "posterior_mean", posterior.mean(dim=1), truth, wanted, here)
    if "residual" in wanted:
        summary = _residuals(posterior, observed)
        for name, value in summary.items():
            card = {**here, "reference": "test observations", "reference_samples": len(posterior)}
            rows.add("posterior", f"residual_{name}", value, **card)
    return rows.rows, {**arrays, **_posterior_arrays(posterior, observed, truth)}


def _compare(
    rows: _Rows,
    subjects: Mapping[str, tuple[HasRows, Mapping[str, Any]]],
    test: HasRows,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    seed: int,
    extractor: str | Path | None,
    inception_weights: str | Path | None,
    inception_reference: str | Path | None,
    device: torch.device,
    keep: Keep,
) -> None:
    """Adds the metrics of many samples to the rows: those that compare them with the test split.

    Each subject is its samples, which need not be in memory, and what made them. The other
    arguments are those of :func:`evaluate`.
    """
    wanted = settings["metrics"]
    if "frechet_distance" in wanted:
        extractor = metrics.load_extractor(extractor)
        of_test = metrics.feature_moments(map(extractor.features, row_parts(test)), full=True)
    if inception_weights is not None:
        network = inception.load(inception_weights, device)
    if "fid" in wanted:
        reference = inception.load_reference(inception_reference, network)

    for subject, (samples, here) in subjects.items():
        against = {**here, "reference": "clean test", "reference_samples": len(test)}
        if "sliced_wasserstein" in wanted:
            value = metrics.sliced_wasserstein(samples, test, seed=seed)
            rows.add(subject, "sliced_wasserstein", value, **against)
        if "sinkhorn_divergence" in wanted:
            most = settings["sinkhorn_samples"]
            measure = partial(metrics.sinkhorn_divergence, samples[:most], test[:most])
            value = cached_number(keep, f"sinkhorn_divergence/{subject}", measure)
            few = {"samples": min(len(samples), most), "reference_samples": min(len(test), most)}
            rows.add(subject, "sinkhorn_divergence", value, **{**against, **few})
        if "frechet_distance" in wanted:
            # Pixels are clipped to their range, as they would be in an image file.
            clipped = (part.clip(-2, 2) for part in row_parts(samples))
            fitted = metrics.feature_moments(map(extractor.features, clipped), full=True)
            value = metrics.frechet_distance_of_moments(fitted, of_test)
            made = {
                "extractor": extractor.name,
                "extractor_digest": extractor.digest(),
                "extractor_accuracy": extractor.validation_accuracy,
            }
            rows.add(subject, "frechet_distance", value, **against, **made)
        if inception_weights is not None:
            # The pieces of one metric are those of the other.
            features = partial(network.features, samples, prefixed(keep, f"inception/{subject}"))
            made = {**here, "extractor": network.name, "extractor_digest": network.digest}
        if "fid" in wanted:
            fitted = metrics.feature_moments(pooled for pooled, _ in features())
            value = metrics.frechet_distance_of_moments(fitted, reference.moments)
            against = {
                "reference": f"clean {reference.split}",
                "reference_samples": reference.samples,
            }
            rows.add(subject, "fid", value, **made, **against)
        if "inception_score" in wanted:
            logits = (logits for _, logits in features())
            value = inception.inception_score(logits, len(samples), seed)
            rows.add(subject, "inception_score", value, **made)
        if "distance_to_manifold" in wanted:
            curve = torch.from_numpy(DATASETS.parse(data).curve(seed, CURVE_POINTS))
            distances = (metrics.distance_to_manifold(x, curve) for x in row_parts(samples))
            value = sum(float(part.sum()) for part in distances) / len(samples)
            rows.add(subject, "distance_to_manifold", value, **here, reference="exact curve")


def reconstruct(
    prior: Prior,
    gaussian: Prior,
    observations: Observations,
    clean: str | Path,
    settings: Mapping[str, Any],
    posterior_sampler: PosteriorSampler,
    seed: int,
    card: Mapping[str, Any],
    keep: Keep = no_cache,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Reconstructs images of observations that the prior need not have been trained on.

    Three ways are measured by PSNR, SSIM and NMSE: ``A' y``, which of undersampled Fourier
    observations is the zero-filled inverse; the Gaussian prior, whose posterior mean is exact; and
    the learned prior, whose posterior mean is that of its samples.

    Arguments:
        prior: The learned prior, on the device to use.
        gaussian: The Gaussian prior that it began with, on the same device.
        observations: The observations, whose test split the priors have never seen.
        clean: The file of clean data; its test split is the reference.
        settings: The config's ``evaluation`` entry.
        posterior_sampler: The sampler of the posteriors.
        seed: The config's seed.
        card: The part of the card that the caller knows: experiment, run, observations, lap.
        keep: Makes the pieces of the work that were not kept, see :mod:`diem.jobs.resume`.
        progress: Called with the number of samples drawn.

    Returns:
        The rows, and the learned prior's arrays ``posterior/*`` as :func:`evaluate` returns them.
    """
    rows = _Rows({**card, "seed": seed, "diem": __version__, "torch": torch.__version__}, [])
    wanted = ("psnr", "ssim", "nmse")
    drawing = (observations, settings, posterior_sampler, seed)
    from_gaussian, _ = _posterior_samples(gaussian, *drawing, prefixed(keep, "floor"), progress)
    from_prior, observed = _posterior_samples(prior, *drawing, keep, progress)
    count = len(from_prior)
    truth = _truth(clean, count, prior.event_shape)

    closed = {"split": "test", "samples": count, "sampler": "closed form"}
    adjoint = observed.operator.adjoint(observed.y)
    _add_fidelity(rows, "adjoint", adjoint, truth, wanted, closed)
    there = observed.to(gaussian.gaussian.mean.device)
    exact = gaussian.gaussian.posterior_mean(there.operator, there.y, there.sigma_y).cpu()
    drawn = _posterior_card(prior, posterior_sampler, from_prior)
    for stage, model, x, mean, made in (
        ("floor", gaussian, from_gaussian, exact, closed),
        ("lap", prior, from_prior, from_prior.mean(dim=1), drawn),
    ):
        of = {"stage": stage, **{key: model.card[key] for key in ("lap", "optimizer_steps")}}
        here = {**_posterior_card(model, posterior_sampler, x), **of}
        _add_fidelity(rows, "posterior", x, truth, wanted, here)
        _add_fidelity(rows, "posterior_mean", mean, truth, wanted, {**made, **of})
    return rows.rows, _posterior_arrays(from_prior, observed, truth)


def _posterior_card(prior: Prior, sampler: PosteriorSampler, posterior: Tensor) -> dict[str, Any]:
    """Returns what made posterior samples ``(observations, draws, *event)``."""
    exact, reverse = prior.denoiser is None, sampler.sampler
    return {
        "split": "test",
        "samples": posterior.shape[0] * posterior.shape[1],
        "sampler": "exact" if exact else reverse.name,
        "sampler_steps": 0 if exact else reverse.steps,
        "denoiser_evaluations": 0 if exact else reverse.evaluations,
        "precision": "exact" if exact else sampler.precision,
    }


def _posterior_arrays(
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


def _add_fidelity(
    rows: _Rows, subject: str, x: Tensor, truth: Tensor, wanted: Sequence[str], card: Mapping
) -> None:
    """Measures reconstructions ``(N, *event)``, or ``(N, draws, *event)``, against the truth."""
    against = {"reference": "clean test", "reference_samples": len(truth)}
    if x.ndim > truth.ndim:
        truth = truth[:, None].expand_as(x).flatten(0, 1)
        x = x.flatten(0, 1)
    data_range = 4.0
    if x.ndim == 4:
        x, truth, data_range = metrics.intensities(x), metrics.intensities(truth), 1.0
    if "psnr" in wanted:
        value = metrics.psnr(x, truth, data_range).mean()
        rows.add(subject, "psnr", value, **against, **card)
    if "ssim" in wanted:
        value = metrics.ssim(x, truth, data_range).mean()
        rows.add(subject, "ssim", value, **against, **card)
    if "nmse" in wanted:
        rows.add(subject, "nmse", metrics.nmse(x, truth).mean(), **against, **card)


def _truth(clean: str | Path, count: int, event_shape: Sequence[int]) -> Tensor:
    """Returns what the first test observations are of."""
    with Reader(clean) as file:
        return torch.from_numpy(file.read("test/x", slice(0, count), event_shape))


def _prior_samples(
    prior: Prior,
    settings: Mapping[str, Any],
    sampler: Sampler,
    seed: int,
    keep: Keep,
    progress: Callable[[int], None],
) -> _Blocks:
    """Draws all samples that were not kept, a piece each block."""
    device = prior.gaussian.mean.device
    total, size = settings["samples"], settings["block"]

    def block(number: int, rows: slice) -> np.ndarray:
        # The same noise for every lap, so that laps can be compared sample by sample.
        generator = torch_generator(seed, Stage.PRIOR, 0, number, device)
        draw = partial(sample_prior, prior, rows.stop - rows.start, sampler, generator)
        return cached_tensor(keep, f"prior/{number}", draw).numpy()

    x = _Blocks(total, size, block)
    for start in range(0, total, size):
        progress(len(x[start : start + size]))
    return x


def _posterior_samples(
    prior: Prior,
    observations: Observations,
    settings: Mapping[str, Any],
    sampler: PosteriorSampler,
    seed: int,
    keep: Keep,
    progress: Callable[[int], None],
) -> tuple[Tensor, Observed]:
    """Draws posterior samples of the first test observations: ``(observations, draws, *event)``."""
    count = min(settings["test_observations"], observations.count("test"))
    observed = observations.load("test", slice(0, count))

    def stream(draw: int, device: torch.device) -> torch.Generator:
        return torch_generator(seed, Stage.TEST_POSTERIOR, 0, draw, device)

    draws = _draws(
        prior, observed, settings, sampler, stream, prefixed(keep, "posterior"), progress
    )
    return draws, observed


def _draws(
    prior: Prior,
    observed: Observed,
    settings: Mapping[str, Any],
    sampler: PosteriorSampler,
    stream: Callable[[int, torch.device], torch.Generator],
    keep: Keep,
    progress: Callable[[int], None],
) -> Tensor:
    """Draws posterior samples ``(observations, draws, *event)``, each draw from its stream."""
    device = prior.gaussian.mean.device
    there = observed.to(device)
    draws = []
    for number in range(settings["posterior_samples"]):
        arguments = (prior, there.operator, there.y, there.sigma_y, stream(number, device))
        draws.append(cached_tensor(keep, str(number), partial(sampler, *arguments)))
        progress(len(there.y))
    return torch.stack(draws, dim=1)


def _prediction_scores(
    prior: Prior,
    observations: Observations,
    settings: Mapping[str, Any],
    sampler: PosteriorSampler,
    seed: int,
    keep: Keep,
    progress: Callable[[int], None],
) -> Tensor:
    """Scores how well one half of each test observation is predicted from the other half.

    Which half is hidden is drawn for each observation, all channels of a pixel together. Posterior
    samples given the shown half are observed, with noise, and scored against the hidden half by
    :func:`diem.evaluation.metrics.crps`. Halves, noise and random streams are the same for every prior.

    Returns:
        The scores of those observations of which some values were hidden.
    """
    total = min(settings["predicted_observations"], observations.count("test"))
    size = settings["test_observations"]
    scores = []
    for part, start in enumerate(range(0, total, size), start=1):
        held = observations.load("test", slice(start, min(start + size, total)))
        generator = torch_generator(seed, Stage.PREDICTION, 0, part)
        shape = held.y.shape
        pixels = (shape[0], 1, *shape[2:]) if len(shape) > 2 else shape
        shown = (torch.rand(pixels, generator=generator) < 0.5).expand(shape)
        noise = torch.randn(settings["posterior_samples"], *shape, generator=generator)

        def stream(draw: int, device: torch.device, part: int = part) -> torch.Generator:
            return torch_generator(seed, Stage.PREDICTION, part, draw, device)

        half = Partial(held.operator, shown)
        observed = Observed(half, held.y * shown, held.sigma_y, held.index)
        here = prefixed(keep, f"prediction/{part}")
        draws = _draws(prior, observed, settings, sampler, stream, here, progress)
        predicted = [
            held.operator.forward(x) + held.sigma_y * n
            for x, n in zip(draws.unbind(dim=1), noise, strict=True)
        ]
        hidden = held.operator.observed() & ~shown
        scores.append(metrics.crps(torch.stack(predicted, dim=1), held.y, hidden))
    scores = torch.cat(scores)
    scores = scores[~scores.isnan()]
    if len(scores) < 2:
        raise DiemError(
            f"{observations.path}: the test observations are too few to predict hidden values of"
            " (evaluation.metrics, 'prediction')."
        )
    return scores


def _residuals(posterior: Tensor, observed: Observed) -> dict[str, float]:
    """Summarises ``|y - A x| / sigma_y`` over all draws and observed values."""
    parts = [
        metrics.residual(observed.y, observed.operator.forward(x), observed.sigma_y)
        for x in posterior.unbind(dim=1)
    ]
    mask = observed.operator.observed()
    return metrics.residual_summary(torch.stack(parts, dim=1), mask[:, None])


def _observation_distance(
    x: HasRows, observations: Observations, size: int, seed: int
) -> tuple[float, int]:
    r"""Returns the distance between held-out observations and observations of model samples.

    Each test observation's operator observes one model sample; the sliced Wasserstein distance is
    between the two sets of :math:`A^\top y`, in which observations of different operators can be
    compared.
    """
    count = min(len(x), observations.count("test"))

    def of_model(number: int, rows: slice) -> np.ndarray:
        held = observations.load("test", rows)
        noise = torch.randn(held.y.shape, generator=torch_generator(seed, Stage.METRIC, 0, number))
        y = held.operator.forward(torch.from_numpy(x[rows])) + held.sigma_y * noise
        return held.operator.adjoint(y).numpy()

    def of_test(number: int, rows: slice) -> np.ndarray:
        held = observations.load("test", rows)
        return held.operator.adjoint(held.y).numpy()

    sets = (_Blocks(count, size, adjoint) for adjoint in (of_model, of_test))
    return metrics.sliced_wasserstein(*sets, seed=seed), count
