"""Compares posterior samplers where the posterior is known exactly, without any training.

The prior is a Gaussian field of 16x16 pixels with a power-law spectrum, whose denoiser and whose
posteriors are exact for every operator. For each method and number of steps: the bias of the
posterior mean in posterior standard deviations (RMS over pixels), the variance relative to the
exact one, how often 90 % intervals hold the truth, and the RMS residual in units of the noise. A
perfect sampler has a bias of 0 (0.25 of 16 draws), a variance of 1, a coverage of 90 % and a
residual of 1. MMPS and its rivals take the schedule and the solver of the paper's appendix E; the
E-step is this project's own sampler, with Karras' levels and without or with the spread that few
steps leave out. Every number is the mean of three seeds with its standard error. From the root of
the repository:

    python benchmarks/exact_posteriors.py
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import torch
from azula.noise import VESchedule, VPSchedule
from torch import Tensor

from diem import operators
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers.ddpm import DDPM
from diem.evaluation.ranks import coverage, pit
from diem.files.atomic import atomic
from diem.operators.base import Operator
from diem.paper.methods import METHODS
from diem.paper.methods.base import Problem
from diem.paper.restoration.restore import restore
from diem.report.tables.writing import with_error
from diem.seeds import Stage, rng, stream_seed, torch_generator

SIZE, RANK, OBSERVATIONS, DRAWS = 16, 96, 32, 16
SEEDS = (0, 1, 2)
STEPS = (10, 30, 100)
TASKS = {
    "inpainting, 75 % missing": ({"name": "mask", "missing": 0.75}, 0.01),
    "deblurring": ({"name": "blur", "size": 5, "intensity": 0.5}, 0.05),
    "a quarter of k-space": ({"name": "fourier", "acceleration": 4}, 0.02),
    "super-resolution, 4x": ({"name": "downsample", "factor": 4}, 0.05),
}
METHODS_COMPARED = {
    "MMPS (1)": {"name": "mmps", "iterations": 1},
    "MMPS (5)": {"name": "mmps", "iterations": 5},
    "DPS": {"name": "dps"},
    "PGDM": {"name": "pgdm"},
    "TMPD": {"name": "tmpd"},
    "DiffPIR": {"name": "diffpir"},
}
OURS = {"E-step": "none", "E-step with spread": "all"}
"""This project's own sampler, without and with the spread that few steps leave out."""


def field() -> Gaussian:
    """Returns a Gaussian field, within [-1, 1] nearly always, whose power falls as k^-3."""
    k = np.fft.fftfreq(SIZE) * SIZE
    power = 1 / (1 + np.hypot(k[:, None], k)) ** 3
    covariance = np.fft.ifft2(power).real
    index = np.arange(SIZE)
    shifts = (index[:, None] - index) % SIZE
    dense = covariance[shifts[:, None, :, None], shifts[None, :, None, :]].reshape(SIZE**2, -1)
    values, vectors = np.linalg.eigh(0.16 * dense / dense[0, 0])
    noise = values[:-RANK].mean()
    factors = vectors[:, -RANK:] * np.sqrt(values[-RANK:] - noise)
    zero = torch.zeros(1, SIZE, SIZE)
    return Gaussian(
        zero,
        torch.tensor(noise).float(),
        torch.from_numpy(factors).float().reshape(1, SIZE, SIZE, -1),
    )


def exact_prior(gaussian: Gaussian) -> Prior:
    """Returns the field as a prior with its exact denoiser, whose error is known."""
    schedule = VESchedule(sigma_min=1e-3, sigma_max=10.0)
    sigmas = torch.logspace(-3, 1, 24)
    errors = []
    for sigma in sigmas:
        z = gaussian.denoising_error(sigma**2)
        errors.append(float(z.noise + z.factors.square().sum() / z.mean.numel()))
    card = {"denoising_error": {"sigma": sigmas.tolist(), "error": errors}}
    return Prior(gaussian, gaussian.denoiser(schedule), card)


def moments(gaussian: Gaussian, operator: Operator, y: Tensor, sigma_y: float) -> tuple:
    """Returns the exact means and standard deviations of the posteriors."""
    g = gaussian.to(torch.float64)
    sigma_x = g.dense()
    a = operator.dense(torch.float64)
    gain = (
        sigma_x
        @ a.mT
        @ torch.linalg.inv(
            a @ sigma_x @ a.mT + sigma_y**2 * torch.eye(a.shape[1], dtype=torch.float64)
        )
    )
    mean = (gain @ y.double().flatten(1)[..., None])[..., 0]
    variance = sigma_x.diagonal() - (gain * (sigma_x @ a.mT)).sum(dim=-1)
    return mean.reshape(len(y), *gaussian.mean.shape), variance.sqrt().reshape(mean.shape)


def scores(x: Tensor, truth: Tensor, exact: tuple, problem: Problem, seed: int) -> dict[str, float]:
    """Returns the numbers of draws ``(observations, draws, *event)``."""
    mean, deviation = exact[0].flatten(1), exact[1]
    draws = x.double().flatten(2)
    residual = torch.stack(
        [(problem.y - problem.operator.forward(one)) / problem.sigma_y for one in x.unbind(1)]
    )
    residual = residual[problem.operator.observed().expand_as(residual)]
    transforms = pit(draws, truth.flatten(1), torch_generator(seed, Stage.CALIBRATION))
    variance = draws.var(dim=1).sum() / deviation.square().sum()
    bias = (draws.mean(dim=1) - mean) / deviation
    return {
        "bias": float(bias.square().mean().sqrt()),
        "variance": float(variance),
        "coverage": 100 * float(coverage(transforms, 0.9).double().mean()),
        "residual": float(residual.square().mean().sqrt()),
    }


def measure(gaussian: Gaussian, task: str, seed: int) -> list[dict]:
    """Returns the numbers of every method on one task."""
    spec, sigma_y = TASKS[task]
    stream = torch_generator(seed, Stage.RESTORATION)
    truth = gaussian.sample(OBSERVATIONS, stream)
    operator = operators.simulate(spec, truth.shape[1:], OBSERVATIONS, rng(seed, Stage.RESTORATION))
    y = operator.forward(truth)
    y = (y + sigma_y * torch.randn(y.shape, generator=stream)) * operator.observed()
    problem = Problem(operator, y, sigma_y)
    exact = moments(gaussian, operator, y, sigma_y)
    many = Problem(
        operator[torch.arange(OBSERVATIONS).repeat_interleave(DRAWS)],
        y.repeat_interleave(DRAWS, dim=0),
        sigma_y,
    )
    drawing = torch_generator(seed, Stage.TEST_POSTERIOR)
    draws = {("exact", 0, 0): gaussian.sample_posterior(*many, drawing)}
    vp, prior = gaussian.denoiser(VPSchedule()), exact_prior(gaussian)
    for steps, (name, settings) in itertools.product(STEPS, METHODS_COMPARED.items()):
        method = METHODS.parse(settings)
        noise = stream_seed(seed, Stage.RESTORATION, steps)
        draws[name, steps, steps] = restore(method, vp, many, steps, noise)
    for steps, (name, spread) in itertools.product(STEPS, OURS.items()):
        sampler = PosteriorSampler(DDPM(steps=steps, spacing="karras", spread=spread))
        x = sampler(prior, *many, torch_generator(seed, Stage.TEST_POSTERIOR, steps))
        draws[name, steps, sampler.sampler.evaluations] = x
    rows = []
    for (name, steps, evaluations), x in draws.items():
        drawn = x.reshape(OBSERVATIONS, DRAWS, *x.shape[1:])
        card = {"task": task, "method": name, "steps": steps, "evaluations": evaluations}
        rows.append({**card, "seed": seed, **scores(drawn, truth, exact, problem, seed)})
    return rows


def shown(rows: list[dict], key: str) -> str:
    """Returns the mean over seeds with its standard error."""
    values = np.array([row[key] for row in rows])
    if not np.isfinite(values).all():
        return "diverged"
    error = values.std(ddof=1) / math.sqrt(len(values))
    return with_error(float(values.mean()), float(error))


def write(rows: list[dict]) -> None:
    """Writes the numbers to ``benchmarks/exact_posteriors.json`` and tables beside it."""
    about = __doc__.split("\n\n")[1].rpartition(" From the root")[0]
    lines = ["# Posterior samplers where the posterior is known", "", about]
    for task in TASKS:
        lines += ["", f"## {task}, sigma_y {TASKS[task][1]}", ""]
        lines += ["| method | steps | evaluations | bias | variance | coverage (%) | residual |"]
        lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
        of_task = [row for row in rows if row["task"] == task]
        for method, steps in dict.fromkeys((row["method"], row["steps"]) for row in of_task):
            same = [row for row in of_task if (row["method"], row["steps"]) == (method, steps)]
            numbers = [shown(same, key) for key in ("bias", "variance", "coverage", "residual")]
            cells = [method, str(steps), str(same[0]["evaluations"]), *numbers]
            lines.append(f"| {' | '.join(cells)} |")
    stem = Path(__file__).with_suffix("")
    for kind, text in (("json", json.dumps(rows, indent=1)), ("md", "\n".join(lines) + "\n")):
        with atomic(stem.with_suffix(f".{kind}")) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Measures every method on every task at three seeds."""
    torch.set_num_threads(1)
    gaussian, rows = field(), []
    for task, seed in itertools.product(TASKS, SEEDS):
        rows += measure(gaussian, task, seed)
        print(f"{task}, seed {seed}: done", flush=True)
    write(rows)


if __name__ == "__main__":
    main()
