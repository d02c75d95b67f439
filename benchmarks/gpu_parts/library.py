"""Every kind of computation through the library: against the CPU, and twice with the same bits.

An operator, a covariance or a sampler is given the same inputs on the CPU and on the device. Two
short experiments then run from data to metrics, each twice: vectors with a perceptron, and complex
images with a U-Net, both with the restarts of the recipe ``fast``.
"""

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diem import operators
from diem.config.resolve import resolve
from diem.data.observations import Observations, Observed
from diem.data.sets import DATASETS
from diem.data.simulate import corrupt
from diem.diffusion.covariances import CARD_ERROR, COVARIANCES
from diem.diffusion.gaussian import Gaussian, fit_to_observations
from diem.diffusion.posterior import Guidance, PosteriorDenoiser
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser, read_prior
from diem.diffusion.samplers import SAMPLERS, sigma_to_time
from diem.em.e_step import EStep, e_step
from diem.em.laps import sampling_of_lap, training_of_lap
from diem.em.m_step import Lap, m_step
from diem.em.restart import Restart, replace_contradicting
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.files.hdf5 import write_hdf5
from diem.inference.prior_denoiser import load_prior
from diem.jobs.job import Job
from diem.operators.base import Operator
from diem.seeds import Stage, torch_generator
from gpu_parts.setup import Case, Setup, differences, error, single_precision

__all__ = ["cases", "experiment", "problem", "run_experiment", "strict"]

SCHEDULE = {"sigma_min": 0.01, "sigma_max": 10.0}
UNET = {"name": "unet", "channels": [8, 16], "blocks": 1, "embedding": 8, "attention": {"1": 2}}
MLP = {"name": "mlp", "hidden": [32, 32], "embedding": 8}
RESIDUAL = {"name": "residual_mlp", "width": 32, "blocks": 1, "embedding": 8}
IMAGE, VECTOR = (2, 8, 8), (5,)
PROBLEMS: dict[str, tuple[dict[str, Any], tuple[int, ...], dict[str, Any]]] = {
    "mask": ({"name": "mask", "missing": 0.5}, IMAGE, UNET),
    "box": ({"name": "mask", "box": 3}, IMAGE, RESIDUAL),
    "projection": ({"name": "projection", "rows": 2}, VECTOR, MLP),
    "sparse": ({"name": "sparse", "rows": 2, "entries": 3}, VECTOR, MLP),
    "blur": ({"name": "blur", "size": 3, "intensity": 0.5}, IMAGE, UNET),
    "downsample": ({"name": "downsample", "factor": 2}, IMAGE, UNET),
    "fourier, one coil": ({"name": "fourier", "acceleration": 2}, IMAGE, UNET),
    "fourier, two coils": ({"name": "fourier", "acceleration": 2, "coils": 2}, IMAGE, UNET),
    "own": ({"name": "gpu_parts.library:Doubled"}, IMAGE, UNET),
}
"""By name: the entry of the operator, the shape of the event, and the network."""

DDPM = {"sampler": {"name": "ddpm", "steps": 3}}
UNORDERED = ("sparse",)
"""Operators whose sums have no fixed order on a GPU."""


class Doubled(Operator):
    """An operator of one's own that has neither parameters nor ``observed``."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.event_shape

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def adjoint(self, y: Tensor) -> Tensor:
        return 2 * y


def problem(name: str, batch: int = 6) -> tuple[Prior, Operator, Tensor]:
    """Returns a prior with random weights, operators, and observations, on the CPU."""
    spec, shape, network = PROBLEMS[name]
    generator = torch.Generator().manual_seed(0)
    operator = operators.simulate(spec, shape, batch, np.random.default_rng(0))
    denoiser = build_denoiser(network, SCHEDULE, shape, 0).eval().requires_grad_(False)
    factors = 0.5 * torch.randn(*shape, 2, generator=generator)
    gaussian = Gaussian(torch.randn(shape, generator=generator), torch.tensor(0.3), factors)
    x = gaussian.sample(batch, generator)
    y = operator.forward(x)
    noise = torch.randn(y.shape, generator=generator)
    card = {CARD_ERROR: {"sigma": [1.0], "error": [0.5]}}
    return Prior(gaussian, denoiser, card), operator, y + 0.1 * noise * operator.observed()


def strict(limit: float, **errors: float) -> dict[str, float]:
    """Returns errors, none of which may exceed a limit.

    Raises:
        AssertionError: If one does.
    """
    above = {name: value for name, value in errors.items() if not value <= limit}
    assert not above, f"errors above {limit}: {above}"
    return errors


def posterior_mean(
    prior: Prior, operator: Operator, y: Tensor, sigma: float, guidance: Guidance, **options: Any
) -> Tensor:
    """Returns the mean of the posterior denoiser at a noise level, of the same input everywhere."""
    assert prior.denoiser is not None
    noise = torch.randn(len(y), *prior.event_shape, generator=torch.Generator().manual_seed(3))
    x_t = prior.gaussian.mean + sigma * noise.to(y)
    level = torch.tensor([sigma], dtype=torch.float64)
    t = sigma_to_time(prior.denoiser.schedule, level.to(y.device)).float()
    denoiser = PosteriorDenoiser(
        prior.denoiser, operator, y, 0.1, guidance, gaussian=prior.gaussian, **options
    )
    return denoiser(x_t, t).mean


def _on_both(
    setup: Setup, name: str
) -> tuple[tuple[Prior, Operator, Tensor], tuple[Prior, Operator, Tensor]]:
    """Returns a problem on the CPU and on the device."""
    prior, operator, y = problem(name)
    again = problem(name)[0].to(setup.device)
    return (prior, operator, y), (again, operator.to(setup.device), y.to(setup.device))


def _operator(setup: Setup, name: str) -> dict[str, Any]:
    """An operator and all that uses it."""
    with single_precision():
        return {
            **_compared(setup, name),
            **_twice(setup, name, DDPM),
        }


def _compared(setup: Setup, name: str) -> dict[str, float]:
    (prior, operator, y), (device_prior, moved, device_y) = _on_both(setup, name)
    x = prior.gaussian.sample(len(y), torch.Generator().manual_seed(1))
    errors = {
        "forward": error(moved.forward(x.to(device_y)), operator.forward(x)),
        "adjoint": error(moved.adjoint(device_y), operator.adjoint(y)),
        "observed": error(moved.observed().float(), operator.observed().float()),
        "exact_mean": error(
            device_prior.gaussian.posterior_mean(moved, device_y, 0.1),
            prior.gaussian.posterior_mean(operator, y, 0.1),
        ),
        "denoiser": error(
            posterior_mean(device_prior, moved, device_y, 1.0, Guidance(limit=1.5)),
            posterior_mean(prior, operator, y, 1.0, Guidance(limit=1.5)),
        ),
    }
    sigma_y = torch.tensor(0.1, device=setup.device)
    scaled = Observed(moved, device_y, sigma_y, np.arange(len(y))).scaled(0.1, 1.5)
    here = Observed(operator, y, sigma_y.cpu(), np.arange(len(y))).scaled(0.1, 1.5)
    errors["scaled"] = error(scaled.y, here.y)
    fitted = [
        fit_to_observations(op, v, 0.1, 2, 3, torch_generator(0, Stage.GAUSSIAN, device=v.device))
        for op, v in ((moved, device_y), (operator, y))
    ]
    # The whole of it is fitted to draws, where the event is large: then other random numbers.
    errors["fit"] = error(fitted[0].mean, fitted[1].mean)
    generator = torch_generator(0, Stage.E_STEP, device=setup.device)
    start = x.to(device_y)
    mended = replace_contradicting(start, device_prior, moved, device_y, sigma_y, 3.0, generator)
    assert torch.isfinite(mended).all()
    return strict(2e-3, **errors)


def _twice(setup: Setup, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Draws posterior samples twice."""
    prior, operator, y = _on_both(setup, name)[1]
    sampler = PosteriorSampler.from_config(entry)
    x, again = (
        sampler(prior, operator, y, 0.1, torch_generator(0, Stage.E_STEP, device=setup.device))
        for _ in range(2)
    )
    assert torch.isfinite(x).all(), "the samples are not finite"
    same = torch.equal(x, again)
    if not same and name not in UNORDERED:
        raise AssertionError(f"the same seed gave other samples: relative {error(again, x):.2g}")
    return {"same_bits": same}


def _covariance(setup: Setup, covariance: str, name: str) -> dict[str, Any]:
    guidance = Guidance(COVARIANCES.parse(covariance), iterations=2)
    here, there = _on_both(setup, name)
    with single_precision():
        there_mean = posterior_mean(*there, 1.0, guidance)
    errors = strict(5e-3, denoiser=error(there_mean, posterior_mean(*here, 1.0, guidance)))
    entry = {"sampler": {"name": "ddim", "steps": 3}, "covariance": covariance, "iterations": 2}
    return {**errors, **_twice(setup, name, entry)}


def _unordered(setup: Setup) -> dict[str, Any]:
    """Which operations PyTorch itself calls not deterministic, in a lap with a U-Net."""
    told: set[str] = set()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            _twice(setup, "fourier, two coils", DDPM)
            _twice(setup, "sparse", DDPM)
            _train_twice(setup)
        finally:
            torch.use_deterministic_algorithms(deterministic)
    for warning in caught:
        text = str(warning.message)
        if "determinis" in text:
            told.add(text.partition(". ")[0])
    return {"operations": sorted(told) or "none"}


def _train_twice(setup: Setup, **options: Any) -> dict[str, Any]:
    """Takes optimizer steps twice from the same weights."""
    from diem.em.training import Trained, Training

    states = []
    for _ in range(2):
        denoiser = build_denoiser(UNET, SCHEDULE, IMAGE, 0).to(setup.device)
        model = Trained(denoiser, Training(4, 16, 1e-3, **options))
        generator = torch.Generator().manual_seed(0)
        x, z = torch.randn(2, 16, *IMAGE, generator=generator).to(setup.device)
        t = torch.rand(16, generator=generator).to(setup.device)
        torch.manual_seed(0)
        losses = [model.step(x, t, z, number, 1e-3) for number in range(4)]
        states.append(torch.cat([torch.stack(losses), *(w.flatten() for w in model.means)]))
    one, other = states
    assert torch.isfinite(one).all(), "the losses are not finite"
    assert torch.equal(one, other), f"other weights: relative {error(other, one):.2g}"
    return {"same_bits": True, "loss": float(one[3])}


def _deterministic(setup: Setup) -> dict[str, Any]:
    """What helps if the bits of training differ."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=True
    ):
        return _train_twice(setup, precision="bfloat16", channels_last=True)


def experiment(kind: str, tiny: bool) -> dict[str, Any]:
    """Returns the resolved entry of a small experiment: ``vectors`` or ``images``."""
    many, laps = (48, 3) if tiny else (256, 4)
    common = {
        "schedule": SCHEDULE,
        "gaussian": {"rank": 3, "iterations": 3},
        "recipe": "fast",
        "laps": laps,
        "runs": {"base": {"observations": "some"}},
    }
    metrics = ["sliced_wasserstein", "psnr", "residual", "prediction", "observation_distance"]
    evaluation = {
        "samples": 32,
        "sampler": {"name": "pc", "steps": 4, "spacing": "karras"},
        "test_observations": 8,
        "posterior_samples": 2,
    }
    if kind == "vectors":
        own = {
            "data": {"name": "manifold", "train": many, "validation": 32, "test": 32},
            "observations": {
                "some": {"operator": {"name": "projection", "rows": 2}, "sigma_y": 0.05}
            },
            "network": MLP,
            "e_step": {"sampler": {"steps": 4}, "block": 40, "covariance": "cov_x", "batch": 30},
            "m_step": {"steps": 20 if tiny else 128, "batch": 32, "learning_rate": 0.001},
            "evaluation": {**evaluation, "metrics": [*metrics, "distance_to_manifold"]},
        }
    else:
        more = ["ssim", "nmse"] if util.find_spec("skimage") else ["nmse"]
        own = {
            "data": {
                **{"name": "phantoms", "size": 16, "complex": True},
                **{"train": many // 4, "validation": 8, "test": 8},
            },
            "observations": {
                "some": {
                    "operator": {"name": "fourier", "acceleration": 2, "coils": 2},
                    "sigma_y": 0.02,
                }
            },
            "network": {**UNET, "patch": 2, "dropout": 0.1},
            "e_step": {"sampler": {"steps": 3}, "block": 8},
            "m_step": {
                **{"steps": 4 if tiny else 128, "batch": 8, "learning_rate": 0.001},
                "augment": {"flip": True, "shift": 1},
            },
            "evaluation": {**evaluation, "metrics": [*metrics, *more]},
        }
    config = resolve({"experiments": {"small": {**common, **own}}}, "gpu.py")
    return config["experiments"]["small"]


def run_experiment(entry: Mapping[str, Any], folder: Path, job: Job) -> list[dict[str, Any]]:
    """Runs an experiment from its data to the metrics of its last lap, which are returned."""
    run = entry["runs"]["base"]
    splits = DATASETS.parse(entry["data"]).load(job.seed)
    clean, observed = folder / "clean.h5", folder / "observations.h5"
    write_hdf5(clean, {f"{name}/x": split.x for name, split in splits.items()}, {})
    corrupt(clean, observed, entry["observations"]["some"], job.seed, "small")
    with ExitStack() as opened:
        observations = opened.enter_context(Observations(observed))
        some = observations.load("train").to(job.device)
        gaussian = fit_to_observations(
            *(some.operator, some.y, some.sigma_y),
            *(entry["gaussian"]["rank"], entry["gaussian"]["iterations"]),
            torch_generator(job.seed, Stage.GAUSSIAN, device=job.device),
            job.keep,
        )
        path = folder / "gaussian.safetensors"
        Prior(gaussian, None, {"lap": 0, "optimizer_steps": 0}).save(path)
        samples: list[Path] = []
        for lap in range(1, entry["laps"] + 1):
            drawing = sampling_of_lap(run["e_step"], lap == entry["laps"])
            restart = Restart.from_config(drawing, lap, samples)
            shard, own = folder / f"samples_{lap}.h5", replace(job, keep=Job().keep)
            settings = EStep.from_config(drawing)
            e_step(shard, read_prior(path), observations, settings, lap, own, restart=restart)
            made = Lap(
                number=lap,
                samples=[shard],
                m_step=training_of_lap(run["m_step"], lap, lap == entry["laps"]),
                network=entry["network"],
                schedule=entry["schedule"],
                gaussian=entry["gaussian"],
                previous=None if lap == 1 else path,
                card={"data": entry["data"], "e_step": run["e_step"]},
            )
            path, samples = folder / f"prior_{lap}.safetensors", [shard]
            m_step(made, path, folder / f"losses_{lap}.csv", own)
        evaluation = Evaluation(
            read_prior(path).to(job.device),
            observations,
            PosteriorSampler.from_config(run["e_step"]),
            entry["evaluation"],
            entry["data"],
            {"clean": str(clean), "samples": [str(shard) for shard in samples]},
            replace(job, keep=Job().keep),
        )
        rows, arrays = evaluate(evaluation, {})
        write_hdf5(folder / "evaluation.h5", arrays, {})
    return rows


def _experiment(setup: Setup, kind: str) -> dict[str, Any]:
    """An experiment, twice with the same bits."""
    entry = experiment(kind, setup.tiny)
    folders = [setup.new_folder(f"{kind}_{number}") for number in (1, 2)]
    rows = [run_experiment(entry, folder, Job(seed=3, device=setup.device)) for folder in folders]
    values = [{f"{r['metric']}/{r['subject']}": r["value"] for r in made} for made in rows]
    count, told = differences(*folders)
    shutil.copy(folders[0] / f"prior_{entry['laps']}.safetensors", setup.folder / f"{kind}.prior")
    assert not told, f"{len(told)} arrays of {count} files differ: {told[:6]}"
    assert values[0] == values[1], "the metrics differ"
    return {"files": count, "metrics": len(values[0]), "same_bits": True}


def _loaded(setup: Setup, kind: str) -> dict[str, Any]:
    """A prior in use: samples and posteriors, twice."""
    path = setup.folder / f"{kind}.safetensors"
    shutil.copy(setup.folder / f"{kind}.prior", path)
    prior = load_prior(path, setup.device)
    x, again = (prior.sample(10, batch=8, seed=1) for _ in range(2))
    assert torch.equal(x, again), "the same seed gave other samples"
    assert x.device.type == setup.device.type
    spec = {"name": "mask", "missing": 0.5}
    if len(prior.event_shape) == 1:
        spec = {"name": "projection", "rows": 2}
    operator = operators.simulate(spec, prior.event_shape, 3, np.random.default_rng(0))
    y = operator.forward(x[:3].cpu())
    drawn = prior.posterior(y, operator, 0.1, 4, sampler={"steps": 3}, limit=1.5)
    assert drawn.shape == (3, 4, *prior.event_shape)
    assert torch.isfinite(drawn).all()
    denoised = prior(x, torch.tensor(0.5, device=setup.device)).mean
    return {"samples": len(x), "posteriors": list(drawn.shape), "finite": _finite(denoised)}


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases."""
    kinds = ("vectors", "images")
    for kind in kinds:
        yield f"experiment of {kind}, twice", partial(_experiment, setup, kind)
    for kind in kinds:
        yield f"the prior of {kind} in use", partial(_loaded, setup, kind)
    for name in PROBLEMS:
        yield f"operator {name}", partial(_operator, setup, name)
    for covariance in COVARIANCES.names:
        for name in ("mask", "projection"):
            yield f"covariance {covariance}, {name}", partial(_covariance, setup, covariance, name)
    for sampler in SAMPLERS.names:
        entry = {"sampler": {"name": sampler, "steps": 3, "spacing": "karras"}, "batch": 4}
        yield f"sampler {sampler}", partial(_twice, setup, "mask", entry)
    for options in ({}, {"precision": "bfloat16", "channels_last": True}):
        name = options.get("precision", "float32")
        yield f"training in {name}, twice", partial(_train_twice, setup, **options)
    yield "training with cuDNN deterministic, twice", partial(_deterministic, setup)
    yield "operations without a fixed order", partial(_unordered, setup)
