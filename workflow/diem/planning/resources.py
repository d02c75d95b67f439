"""What a job asks of a cluster: minutes and memory, from the configuration's sizes.

These are limits to ask for, and no predictions: they are found without PyTorch, since Snakemake
needs them while it plans, and without knowing the machine. A job that was cut off goes on from its
last block or checkpoint, so too short a limit costs little.
"""

import math
from collections.abc import Mapping
from typing import Any

from diem.data.sets import DATASETS
from diem.networks import NETWORKS

__all__ = [
    "e_step_flops",
    "evaluation_flops",
    "event_shape",
    "m_step_flops",
    "memory_mb",
    "minutes",
    "pass_flops",
    "samples_mb",
    "samples_of",
]

RATES = {"cpu": 2e10, "gpu": 5e12}
"""Sustained FLOP/s that the limits of time count with, of one thread and of one GPU: low ones."""

START = 15.0
"""Minutes that every job has for its start: queues of file systems, imports, reading, writing."""

BASE_MB = 3000.0
"""Memory of Python, PyTorch and, on a GPU, its libraries."""


def event_shape(data: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the shape of one sample of a ``data`` entry."""
    return DATASETS.parse(data).event_shape()


def pass_flops(network: Mapping[str, Any], shape: tuple[int, ...]) -> float:
    """Returns the floating-point operations of one forward pass on one sample."""
    return 2 * NETWORKS.parse(network).multiplications(shape)


def e_step_flops(experiment: Mapping[str, Any], run: Mapping[str, Any], samples: float) -> float:
    """Returns the floating-point operations of an E-step.

    Arguments:
        experiment: The experiment's entry.
        run: The run's entry.
        samples: How many samples are drawn.
    """
    entry = run["e_step"]
    # A forward pass, and a product with the Jacobian an iteration, which costs about another.
    return samples * _evaluations(entry) * (1 + entry["iterations"]) * _forward(experiment)


def evaluation_flops(experiment: Mapping[str, Any], run: Mapping[str, Any]) -> float:
    """Returns the floating-point operations of sampling what an evaluation measures."""
    entry = experiment["evaluation"]
    prior = entry["samples"] * _evaluations(entry) * _forward(experiment)
    posterior = entry["test_observations"] * entry["posterior_samples"]
    return prior + e_step_flops(experiment, run, posterior)


def m_step_flops(experiment: Mapping[str, Any], entry: Mapping[str, Any], samples: float) -> float:
    """Returns the floating-point operations of a training.

    Arguments:
        experiment: The experiment's entry, or another with its ``data`` and ``network``.
        entry: The ``m_step`` entry, with the steps of the lap.
        samples: How many samples there are to train on.
    """
    seen = entry["epochs"] * samples if entry["epochs"] else entry["steps"] * entry["batch"]
    return 3 * seen * _forward(experiment)


def _evaluations(entry: Mapping[str, Any]) -> int:
    sampler = entry["sampler"]
    return sampler["steps"] * (1 + (sampler["corrections"] if sampler["name"] == "pc" else 0)) + 1


def _forward(experiment: Mapping[str, Any]) -> float:
    return pass_flops(experiment["network"], event_shape(experiment["data"]))


def samples_mb(experiment: Mapping[str, Any], samples: float) -> float:
    """Returns the size of some samples, in MiB."""
    return 4 * samples * math.prod(event_shape(experiment["data"])) / 2**20


def samples_of(experiment: Mapping[str, Any], size: float) -> float:
    """Returns how many samples files of some size, in MiB, hold at most."""
    return size / samples_mb(experiment, 1)


def minutes(flops: float, attempt: int, gpus: int, threads: int = 1) -> int:
    """Returns the limit of time to ask for, which doubles with every attempt.

    Arguments:
        flops: The floating-point operations of the job's networks.
        attempt: 1 at first, 2 after a failure.
        gpus: How many GPUs the job has, 0 if it runs on the CPU.
        threads: How many CPU threads it has.
    """
    rate = gpus * RATES["gpu"] or threads * RATES["cpu"]
    return math.ceil(START + flops / rate / 60) * 2 ** (attempt - 1)


def memory_mb(
    size_mb: float, attempt: int, experiment: Mapping[str, Any] | None = None, batch: int = 0
) -> int:
    """Returns the memory to ask for, in MB, which doubles with every attempt.

    Arguments:
        size_mb: The size of the job's input.
        attempt: 1 at first, 2 after a failure.
        experiment: The experiment's entry, where a network runs on the CPU,
        batch: on so many samples at once.
    """
    kept = 0.0
    if experiment is not None and batch:
        kept = NETWORKS.parse(experiment["network"]).activations(event_shape(experiment["data"]))
    return math.ceil(BASE_MB + 4 * size_mb + 4 * batch * kept / 2**20) * 2 ** (attempt - 1)
