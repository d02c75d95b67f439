"""Memory that is not enough: one sentence that names the key, and a smaller batch then works."""

import contextlib
import gc
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from diem import operators
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.em.training import Training, train
from diem.errors import DiemError
from diem.evaluation.draws import prior_samples
from diem.jobs.job import Job
from gpu_parts.library import SCHEDULE, UNET
from gpu_parts.setup import Case, Setup

__all__ = ["cases"]

SHAPE = (3, 32, 32)
LIMIT_GIB = 1.0
"""So much memory is left to the process. Allocations fail at it, however large the GPU is."""
LARGE, SMALL = 16384, 8


@contextlib.contextmanager
def _limited(setup: Setup, denoiser: torch.nn.Module) -> Iterator[None]:
    """Bounds the memory; on a CPU a large batch raises what PyTorch raises on a GPU."""
    if not setup.cuda:

        def refuse(_: torch.nn.Module, inputs: Any) -> None:
            if len(inputs[0]) > SMALL:
                raise torch.OutOfMemoryError("out of memory")

        handle = denoiser.register_forward_pre_hook(refuse)
        yield
        handle.remove()
        return
    total = torch.cuda.get_device_properties(setup.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(LIMIT_GIB * 2**30 / total, setup.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setup.device)
        torch.cuda.empty_cache()


def _refused(key: str, call: Any) -> str:
    try:
        call(LARGE)
    except DiemError as error:
        assert str(error).startswith(f"{key}: "), str(error)
        sentence = str(error)
    else:
        raise AssertionError(f"{LARGE} samples at once were not refused")
    gc.collect()  # what the error's traceback held
    call(SMALL)
    return sentence


def _case(setup: Setup, half: str) -> dict[str, Any]:
    device, large = setup.device, 64 if setup.tiny else LARGE
    denoiser = build_denoiser(UNET, SCHEDULE, SHAPE, 0).eval().requires_grad_(False).to(device)
    prior = Prior(Gaussian.standard(SHAPE).to(device), denoiser, {})
    operator = operators.build("gpu_parts.library:Doubled", SHAPE, {}).to(device)
    y = torch.zeros(large, *SHAPE, device=device)
    job = Job(device=device)

    def sample(batch: int) -> None:
        sampler = PosteriorSampler.from_config(
            {"sampler": {"name": "ddpm", "steps": 1}, "batch": batch}
        )
        count = min(batch, large)
        sampler(prior, operator, y[:count], 0.1, torch.Generator(device).manual_seed(0))

    def fit(batch: int) -> None:
        again = build_denoiser(UNET, SCHEDULE, SHAPE, 0).to(device)
        if not setup.cuda:
            again.backbone = denoiser.backbone.requires_grad_(True)
        train(again, y, y[:8], Training(1, min(batch, large), 1e-3), seed=0)

    def draw(batch: int) -> None:
        from diem.diffusion.samplers.ddim import DDIM

        prior_samples(prior, DDIM(steps=1), {"samples": min(batch, large), "block": batch}, job)

    keys = {"e_step": "e_step.batch", "m_step": "m_step.batch", "evaluation": "evaluation.block"}
    calls = {"e_step": sample, "m_step": fit, "evaluation": draw}
    with _limited(setup, denoiser.backbone):
        return {"sentence": _refused(keys[half], calls[half])}


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases."""
    for half in ("e_step", "m_step", "evaluation"):
        yield half, partial(_case, setup, half)
