"""What components declare of their cost, from their entries in the configuration."""

from collections.abc import Mapping
from typing import Any

from diem.diffusion.covariances import COVARIANCES
from diem.diffusion.covariances.tweedie import Tweedie
from diem.diffusion.samplers import SAMPLERS

__all__ = [
    "CARD_BYTES",
    "CHUNK",
    "ERROR_LEVELS",
    "ERROR_SAMPLES",
    "dense_size",
    "evaluations",
    "evaluations_per_step",
    "products",
]

CHUNK = 64
"""Optimizer steps between two validation losses, :data:`diem.em.training.CHUNK`."""

ERROR_LEVELS, ERROR_SAMPLES = 24, 64
"""Where a prior's error is measured, :data:`diem.em.loss.LEVELS`, and on how many samples."""

CARD_BYTES = 4096
"""A prior's card, about: its settings, and the error at each level."""


def evaluations_per_step(sampler: Mapping[str, Any]) -> int:
    """Returns the denoiser evaluations of a step of a ``sampler`` entry."""
    return SAMPLERS.parse(sampler).step_evaluations


def evaluations(sampler: Mapping[str, Any]) -> int:
    """Returns the denoiser evaluations of a sample."""
    return SAMPLERS.parse(sampler).evaluations


def products(e_step: Mapping[str, Any]) -> int:
    """Returns the vector-Jacobian products of an evaluation of a posterior denoiser."""
    covariance = COVARIANCES.parse(e_step.get("covariance", Tweedie.name))
    return covariance.products(e_step.get("iterations", 1))


def dense_size() -> int:
    """Returns the largest size of which the fit of the Gaussian works with whole matrices."""
    from diem.diffusion.gaussian import DENSE_SIZE

    return DENSE_SIZE
