"""Measures what an item of each kind of work costs, on this machine.

Each kind runs for a moment, with the real networks, operators and batch sizes, and random numbers
in the place of the data; its FLOPs are counted and its seconds measured. No data set is read or
allocated, nothing is downloaded. Nothing is compiled either, which can take longer than all of it:
with ``compile: true`` the seconds are those without.
"""

import functools
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from azula.denoise import Denoiser, KarrasDenoiser
from torch import Tensor

from diem import operators
from diem.data.observations import Observed, users_observations
from diem.data.simulate import observe
from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.gaussian import Gaussian, fit_to_observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.diffusion.samplers import SAMPLERS, sample_prior
from diem.em.training import Training, train
from diem.evaluation.transport import truncated_transport
from diem.inference.prior_denoiser import rows_of
from diem.jobs.job import Job
from diem.paper.heuristics.divergences import divergences
from diem.paper.restoration.prior import architecture
from diem.planning.flops import FlopCounter
from diem.planning.work import Work
from diem.seeds import Stage, rng, torch_generator

__all__ = ["KINDS", "REPEATS", "Cost", "calibrate", "job_seconds", "measure"]

REPEATS = 5
"""The most times that a kind of work is timed; the median counts."""

Run = Callable[[int], float]
"""Does about so many items of some work, and returns how many it did."""


class Cost(NamedTuple):
    """What one item of some work costs.

    Attributes:
        flops: Its floating-point operations, as PyTorch's counter counts them.
        seconds: Its time.
    """

    flops: float
    seconds: float


def calibrate(
    works: Sequence[Work],
    seconds: float,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Work, Cost]:
    """Measures the costs of some kinds of work.

    Arguments:
        works: The kinds.
        seconds: About how long all of this may take.
        device: The device.
        clock: Tells the seconds.
    """
    with FlopCounter():  # the first use imports what takes seconds
        torch.ones(1, 1) @ torch.ones(1, 1)
    costs, ends = {}, clock() + seconds
    for number, work in enumerate(works):
        # What long work leaves is shared by the rest, and never so little that a call's own cost
        # would be taken for that of its samples.
        share = max((ends - clock()) / (len(works) - number), seconds / (4 * len(works)))
        costs[work] = measure(work, share, device, clock)
    return costs


def measure(
    work: Work,
    seconds: float,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Measures what one item of some work costs.

    The number of items grows to the work's own, or to what fits in the time. Of each number one run
    warms up and is counted; where there is time, others are timed.

    Arguments:
        work: The kind of work.
        seconds: About how long this may take.
        device: The device.
        clock: Tells the seconds.
    """
    run = KINDS[work.kind](work.settings, device)

    def clocked(count: int) -> tuple[float, float]:
        began = clock()
        done = run(count)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return done, clock() - began

    count, began = 1, clock()
    while True:
        with FlopCounter() as counter:
            done, spent = clocked(count)
        if spent < seconds:  # counting slows each call down, and the first warms up
            done, spent = clocked(count)
        larger = min(work.most, int(count * seconds / (4 * spent)))
        if larger <= count or larger < min(2 * count, work.most):
            break
        count = larger
    flops = counter.get_total_flops() / done
    times: list[float] = []
    while len(times) < REPEATS and clock() - began + spent < seconds:
        done, spent = clocked(count)
        times.append(spent / done)
    return Cost(flops, statistics.median(times or [spent / done]))


def job_seconds() -> float:
    """Measures the fixed cost of a job: a fresh Python that imports what a job does."""
    command = [sys.executable, "-c", "import diem.jobs.job, diem.em.e_step, diem.em.m_step"]
    path = os.pathsep.join(p for p in sys.path if p)
    for _ in range(2):  # the first reads the disk
        began = time.perf_counter()
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    return time.perf_counter() - began


# Stand-ins for what the data would give


def _gaussian(shape: tuple[int, ...], rank: int, device: torch.device) -> Gaussian:
    """Returns a Gaussian with a few strong directions, as images have."""
    size = math.prod(shape)
    rank = min(rank, size - 1)
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(size, rank, generator=generator))
    factors = (q * math.sqrt(size / max(rank, 1))).reshape(*shape, rank)
    return Gaussian(torch.zeros(shape), torch.tensor(0.1), factors).to(device)


def _observed(entry: Mapping[str, Any], gaussian: Gaussian, count: int) -> Observed:
    """Returns observations of a Gaussian's samples, or the user's own, on the Gaussian's device."""
    device, stream = gaussian.mean.device, rng(0, Stage.CORRUPTION)
    if "path" in entry:
        chains = entry.get("samples", 1)  # of one observation, side by side
        model = entry.get("operator", {}).get("name"), entry.get("sigma_y")
        with users_observations(entry["path"], *model, entry.get("links", False)) as file:
            first = file.load(file.splits()[0], slice(math.ceil(count / chains))).to(device)
        rows = torch.arange(min(count, chains * len(first.y)), device=device) // chains
        return rows_of(first, rows).scaled(entry["offset"], entry["scale"])
    x = gaussian.sample(count, torch_generator(0, Stage.DATA, device=device)).cpu()
    operator = operators.simulate(entry["operator"], tuple(x.shape[1:]), count, stream)
    sigma_y = torch.tensor(entry["sigma_y"], dtype=torch.float32)
    if sigma_y.ndim > 0:
        sigma_y = sigma_y.reshape(operator.observation_shape)
    y = observe(operator, x, sigma_y, stream)
    return Observed(operator, y, sigma_y, stream.permutation(count)).to(device)


def _observing_once(settings: Mapping[str, Any], gaussian: Gaussian) -> Callable[[int], Observed]:
    """Returns a function that makes so many observations, and the same ones when asked again."""
    return functools.cache(functools.partial(_observed, settings["observations"], gaussian))


def _denoiser(settings: Mapping[str, Any], device: torch.device) -> KarrasDenoiser:
    """Returns a denoiser with a fresh network, to be trained."""
    denoiser = build_denoiser(settings["network"], settings["schedule"], settings["shape"], seed=0)
    return denoiser.to(device)


def _prior(settings: Mapping[str, Any], device: torch.device) -> Prior:
    """Returns a prior with a fresh network, to be sampled."""
    denoiser = _denoiser(settings, device).eval().requires_grad_(False)
    card = {CARD_ERROR: {"sigma": [1.0], "error": [1.0]}}
    return Prior(_gaussian(settings["shape"], settings["rank"], device), denoiser, card)


# The kinds of work: from their settings and a device to a function that does some of it


def _observing(settings: Mapping[str, Any], device: torch.device) -> Run:
    gaussian = _gaussian(settings["shape"], 1, torch.device("cpu"))
    return lambda count: len(_observed(settings["observations"], gaussian, count).y)


def _exact(settings: Mapping[str, Any], device: torch.device) -> Run:
    gaussian = _gaussian(settings["shape"], settings["rank"], device)
    observations = _observing_once(settings, gaussian)

    def run(count: int) -> float:
        o, generator = observations(count), torch_generator(0, Stage.E_STEP, device=device)
        gaussian.sample_posterior(o.operator, o.y, o.sigma_y, generator)
        return len(o.y)

    return run


def _fitting(settings: Mapping[str, Any], device: torch.device) -> Run:
    rank = settings["rank"]
    observations = _observing_once(settings, _gaussian(settings["shape"], rank, device))

    def run(count: int) -> float:
        o, generator = observations(count), torch_generator(0, Stage.GAUSSIAN, device=device)
        fit_to_observations(o.operator, o.y, o.sigma_y, rank, 2, generator)
        return 2 * len(o.y)

    return run


def _posterior(settings: Mapping[str, Any], device: torch.device) -> Run:
    e_step, prior = settings["e_step"], _prior(settings, device)
    sampler, block = PosteriorSampler.from_config(e_step), e_step["block"]
    per_step = sampler.sampler.step_evaluations
    observations = _observing_once(settings, prior.gaussian)

    def run(count: int) -> float:
        batch = min(count, block)
        steps = (count // batch - 1) // per_step
        short = replace(sampler, sampler=sampler.sampler.model_copy(update={"steps": steps}))
        o, generator = observations(batch), torch_generator(0, Stage.E_STEP, device=device)
        short(prior, o.operator, o.y, o.sigma_y, generator)
        return len(o.y) * short.sampler.evaluations

    return run


def _sampling(settings: Mapping[str, Any], device: torch.device) -> Run:
    prior, sampler = _prior(settings, device), SAMPLERS.parse(settings["sampler"])
    per_step = sampler.step_evaluations

    def run(count: int) -> float:
        batch = min(count, settings["block"])
        short = sampler.model_copy(update={"steps": (count // batch - 1) // per_step})
        sample_prior(prior, batch, short, torch_generator(0, Stage.PRIOR, device=device))
        return batch * short.evaluations

    return run


def _training(settings: Mapping[str, Any], device: torch.device) -> Run:
    m_step, shape = settings["m_step"], settings["shape"]
    denoiser = _denoiser(settings, device)

    def run(count: int) -> float:
        size = min(count, m_step["batch"])
        short = {**m_step, "steps": max(1, count // size), "batch": size, "epochs": None}
        # Steps that move nothing cost as much, and no loss of random numbers seems to diverge.
        short |= {"learning_rate": 0.0, "learning_rate_final": None}
        training = Training.from_config(short, size)
        x = torch.randn(size, *shape, device=device)
        train(denoiser, x, x[:1], training, seed=0)
        # The validation loss of one sample, before and after the steps, is a forward pass each, a
        # third of its training.
        return size * training.steps + 2 / 3

    return run


def _heuristics(settings: Mapping[str, Any], device: torch.device) -> Run:
    small = {**settings["entry"], "samples": 8, "iterations": 1, "sigmas": [0.5]}

    def run(count: int) -> float:
        drawn = max(count, 64)
        divergences(settings["name"], {**small, "prior_samples": drawn}, [1], Job(device=device))
        return drawn

    return run


def _transport(settings: Mapping[str, Any], device: torch.device) -> Run:
    entry = settings["entry"]
    device = torch.device("cpu") if device.type == "mps" else device

    def run(count: int) -> float:
        side, iterations = max(8, math.isqrt(count // 8)), 8
        x, y = torch.randn(2, side, entry["dimensions"], dtype=torch.float64, device=device)
        truncated_transport(
            x, y, regularization=entry["regularization"], tolerance=0, iterations=iterations
        )
        return side**2 * iterations

    return run


def _restoration(settings: Mapping[str, Any], device: torch.device, products: bool) -> Run:
    denoiser, batch, shape = _restoring(settings, device), settings["batch"], settings["shape"]

    def run(count: int) -> float:
        x = torch.randn(min(count, batch), *shape, device=device, requires_grad=products)
        with torch.set_grad_enabled(products):
            mean: Tensor = denoiser(x, torch.tensor(0.5, device=device)).mean
        if products:
            torch.autograd.grad(mean, x, mean.detach())
        return len(x)

    return run


def _restoring(settings: Mapping[str, Any], device: torch.device) -> Denoiser:
    """Returns a denoiser as restoration's prior has it, with fresh weights."""
    if "network" in settings:
        denoiser: Denoiser = _denoiser(settings, device)
    else:
        denoiser = architecture(settings["pretrained"])
    return denoiser.to(device).eval().requires_grad_(False)


KINDS: dict[str, Callable[[Mapping[str, Any], torch.device], Run]] = {
    "observing": _observing,
    "exact": _exact,
    "fitting": _fitting,
    "posterior": _posterior,
    "prior": _sampling,
    "training": _training,
    "heuristics": _heuristics,
    "transport": _transport,
    "restoration evaluation": functools.partial(_restoration, products=False),
    "restoration product": functools.partial(_restoration, products=True),
}
"""What runs the kinds of :class:`diem.planning.work.Work`."""
