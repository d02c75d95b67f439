"""Precisions, memory formats and compilation against float32: a posterior denoiser's mean."""

import copy
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from diem import operators
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.posterior import Guidance
from diem.diffusion.prior import Prior, build_denoiser
from diem.networks.runtime import Compile, compile_network, set_memory_format
from gpu_parts.library import UNET, posterior_mean, problem, strict
from gpu_parts.setup import Case, Setup, error, single_precision

__all__ = ["cases"]

SIGMAS = (0.02, 0.3, 3.0)
HALF, SAME = 0.1, 1e-3
"""The limits of tests/unit/test_engine.py, of bfloat16 and of what changes the rounding alone."""
PAPERS = {"name": "unet", "attention": {"1": 4}}
"""The network of the paper's CIFAR-10, whose other options are the defaults."""

Problem = tuple[Prior, operators.Operator, torch.Tensor]


def _moved(setup: Setup, name: str) -> Problem:
    prior, operator, y = problem(name)
    return prior.to(setup.device), operator.to(setup.device), y.to(setup.device)


def _papers(setup: Setup) -> Problem:
    """The paper's network with random weights, on images of its size with pixels missing."""
    shape = (3, 8, 8) if setup.tiny else (3, 32, 32)
    network = UNET if setup.tiny else PAPERS
    operator = operators.simulate(
        {"name": "mask", "missing": 0.75}, shape, 8, np.random.default_rng(0)
    ).to(setup.device)
    denoiser = build_denoiser(network, {"sigma_min": 1e-3, "sigma_max": 1e2}, shape, 0)
    prior = Prior(Gaussian.standard(shape), denoiser.eval().requires_grad_(False), {})
    x = torch.randn(8, *shape, generator=torch.Generator().manual_seed(0)).to(setup.device)
    return prior.to(setup.device), operator, operator.forward(x)


def _bfloat16(make: Any, sigma: float) -> dict[str, Any]:
    given, guidance = make(), Guidance(iterations=2)
    single = posterior_mean(*given, sigma, guidance)
    half = posterior_mean(*given, sigma, guidance, precision="bfloat16")
    assert half.dtype == torch.float32
    far, rounded = error(half, single), _rounded(*given, sigma, guidance, single)
    assert far > 0, "bfloat16 changed nothing"
    return {**strict(max(HALF, 5 * rounded), error=far), "of rounded weights": rounded}


def _rounded(
    prior: Prior,
    operator: operators.Operator,
    y: torch.Tensor,
    sigma: float,
    guidance: Guidance,
    single: torch.Tensor,
) -> float:
    """Returns how far it is with weights that are rounded to the eight bits of bfloat16.

    At high noise the Jacobian of an untrained network is far from positive, and a second iteration
    amplifies any rounding.
    """
    found = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        denoiser = copy.deepcopy(prior.denoiser)
        for weight in denoiser.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.mul_(1 + 2**-9 * noise.to(weight.device))
        other = Prior(prior.gaussian, denoiser, {})
        found.append(error(posterior_mean(other, operator, y, sigma, guidance), single))
    return max(found)


def _tf32(make: Any, sigma: float) -> dict[str, Any]:
    """How far float32 is from itself without TF32, in which convolutions run by default."""
    given, guidance = make(), Guidance(iterations=2)
    default = posterior_mean(*given, sigma, guidance)
    with single_precision():
        strictly = posterior_mean(*given, sigma, guidance)
    return strict(HALF, error=error(default, strictly))


def _channels_last(make: Any, sigma: float) -> dict[str, Any]:
    prior, operator, y = make()
    guidance = Guidance(iterations=2)
    with single_precision():
        expected = posterior_mean(prior, operator, y, sigma, guidance)
        set_memory_format(prior.denoiser, channels_last=True)
        x = posterior_mean(prior, operator, y, sigma, guidance)
    return strict(SAME, error=error(x, expected))


def _compiled(make: Any, sigma: float, precision: str, how: Compile = True) -> dict[str, Any]:
    prior, operator, y = make()
    guidance = Guidance(iterations=2)
    options = {"precision": precision}
    with single_precision():
        expected = posterior_mean(prior, operator, y, sigma, guidance, **options)
        began = time.perf_counter()
        compile_network(prior.denoiser.backbone, "e_step.compile", how)
        x = posterior_mean(prior, operator, y, sigma, guidance, **options)
        seconds = time.perf_counter() - began
        # CUDA graphs are recorded in the second call, and launched from the third on.
        later = [posterior_mean(prior, operator, y, sigma, guidance, **options) for _ in range(3)]
    assert all(torch.equal(x, again) for again in later), "later calls give other numbers"
    limit = SAME if precision == "float32" else HALF
    return {**strict(limit, error=error(x, expected)), "compile_seconds": seconds}


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases."""
    small = {name: partial(_moved, setup, name) for name in ("projection", "mask")}
    makers = {**small, "the paper's U-Net": partial(_papers, setup)}
    for name, make in makers.items():
        for sigma in SIGMAS:
            yield f"bfloat16, {name}, sigma {sigma:g}", partial(_bfloat16, make, sigma)
    if setup.cuda:
        for name, make in makers.items():
            yield f"TF32, {name}, sigma 0.3", partial(_tf32, make, 0.3)
    for name in ("mask", "the paper's U-Net"):
        yield f"channels-last, {name}", partial(_channels_last, makers[name], 0.3)
    for name in ("projection",) if setup.tiny else ("projection", "mask"):
        for precision in ("float32",) if setup.tiny else ("float32", "bfloat16"):
            call = partial(_compiled, makers[name], 0.3, precision)
            yield f"compiled, {name}, {precision}", call
            if setup.cuda:
                yield f"CUDA graphs, {name}, {precision}", partial(call, how="reduce-overhead")
