"""What a job asks of a cluster: minutes and memory, by the work that its stage plans for it.

These are limits to ask for, and no predictions: they are found without PyTorch, since Snakemake
needs them while it plans, and without knowing the machine. A job that was cut off goes on from its
last block or checkpoint, so too short a limit costs little.

What a job does is told by functions of the configuration and of the names (wildcards) of the job::

    asked = training(config, {"experiment": "cifar10", "run": "missing_75", "lap": "01"})
    minutes(config, asked, attempt=1)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diem.config.resolve import ceiling_training, training_of_lap
from diem.errors import DiemError
from diem.planning import declared
from diem.planning.experiment import Experiment
from diem.planning.stages import restoration_prior
from diem.planning.work import FLOAT, Amounts

__all__ = [
    "Asked",
    "e_step",
    "evaluation",
    "gpus",
    "long_minutes",
    "memory_mb",
    "minutes",
    "reconstruction",
    "restoration_training",
    "training",
]

RATES = {"cpu": 2e10, "gpu": 5e12}
"""Sustained FLOP/s that the limits of time count with, of one thread and of one GPU: low ones."""

START = 15.0
"""Minutes that every job has for its start: queues of file systems, imports, reading, writing."""

MIB = 2**20

LONG = 720
"""Minutes of jobs whose work the configuration tells badly."""

BASE_MB = 3000.0
"""Memory of Python, PyTorch and, on a GPU, its libraries."""


@dataclass(frozen=True)
class Asked:
    """What a job does, as far as its limits depend on it.

    Arguments:
        flops: The floating-point operations of its networks, in all of its processes.
        activations_mb: What a network keeps of a batch for a backward pass, in MiB.
        held_mb: The most that it holds of its input, in MiB.
        processes: Its processes, each with as many threads, and with a GPU where there are any.
    """

    flops: float = 0.0
    activations_mb: float = 0.0
    held_mb: float = math.inf
    processes: int = 1


def e_step(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """A shard of an E-step: of a job with the names ``experiment`` and ``run``."""
    entry, run = config["experiments"][names["experiment"]], names["run"]
    settings = entry["runs"][run]["e_step"]
    # The first lap's draws are exact, and nothing tells their time: they ask for the second's.
    flops = _flops(config, names, lambda experiment: experiment.e_step(run, 2))
    batch = settings["batch"] or settings["block"]
    return Asked(flops / config["shards"], _activations_mb(entry, batch))


def training(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """An M-step: ``experiment``, ``run`` and ``lap``; or the ceiling: ``experiment``."""
    entry = config["experiments"][names["experiment"]]
    if "lap" not in names:
        flops = _flops(config, names, Experiment.ceiling)
        return _training(config, entry, ceiling_training(entry), flops)
    run, lap = names["run"], int(names["lap"])
    settings = entry["runs"][run]
    flops = _flops(config, names, lambda experiment: experiment.m_step(run, lap))
    m_step = training_of_lap(settings["m_step"], lap, settings["laps"])
    return _training(config, entry, m_step, flops)


def evaluation(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """An evaluation: ``experiment``, and ``run`` or, of a bound, ``observations``.

    The floor is exact, and asks for what the ceiling does.
    """
    entry = config["experiments"][names["experiment"]]
    run = entry["runs"][names["run"]] if "run" in names else {**names, "e_step": entry["e_step"]}
    flops = _flops(
        config, names, lambda experiment: experiment.evaluation(run["observations"], run["e_step"])
    )
    return _evaluated(config, entry, flops)


def reconstruction(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """A reconstruction: ``experiment``, ``run`` and ``observations``."""
    entry, run = config["experiments"][names["experiment"]], names["run"]
    flops = _flops(
        config, names, lambda experiment: experiment.reconstruction(names["observations"], run)
    )
    return _evaluated(config, entry, flops)


def restoration_training(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """The training of the prior of a comparison of restorations: ``comparison``."""
    comparison = config["restoration"][names["comparison"]]
    entry = {**comparison["train"], "data": comparison["data"]}
    kinds, work = restoration_prior(comparison)
    return _training(config, entry, training_of_lap(entry["m_step"], 1, 1), kinds.flops(work))


def _flops(
    config: Mapping[str, Any], names: Mapping[str, str], work: Callable[[Experiment], Amounts]
) -> float:
    try:
        experiment = Experiment(config, names["experiment"])
    except DiemError:
        # Files that are not there do not tell the size of their data: the job that reads them
        # tells so.
        return 0.0
    return experiment.kinds.flops(work(experiment))


def _training(
    config: Mapping[str, Any], entry: Mapping[str, Any], m_step: Mapping[str, Any], flops: float
) -> Asked:
    fitted = entry["gaussian"]["observations"] * math.prod(declared.event_shape(entry["data"]))
    held = config["cache_mb"] + FLOAT * fitted / MIB
    return Asked(flops, _activations_mb(entry, m_step["batch"]), held, m_step["processes"])


def _evaluated(config: Mapping[str, Any], entry: Mapping[str, Any], flops: float) -> Asked:
    held = 2 * config["cache_mb"]  # the test split, and an E-step's samples
    return Asked(flops, _activations_mb(entry, entry["evaluation"]["block"]), held)


def _activations_mb(entry: Mapping[str, Any], batch: int) -> float:
    shape = declared.event_shape(entry["data"])
    return FLOAT * batch * declared.activations(entry["network"], shape) / MIB


def gpus(config: Mapping[str, Any], processes: int = 1) -> int:
    """Returns the GPUs to ask for: one a process, unless the configuration has none to use."""
    device = config["device"]
    return processes if device == "auto" or device.startswith("cuda") else 0


def minutes(config: Mapping[str, Any], asked: Asked, attempt: int) -> int:
    """Returns the limit of time to ask for, which doubles with every attempt.

    Arguments:
        config: The configuration.
        asked: What the job does.
        attempt: 1 at first, 2 after a failure.
    """
    rate = gpus(config) * RATES["gpu"] or config["threads"] * RATES["cpu"]
    spent = asked.flops / (rate * asked.processes) / 60
    return math.ceil(START + spent) * 2 ** (attempt - 1)


def long_minutes(attempt: int) -> int:
    """Returns the limit of time of a job whose work the configuration tells badly."""
    return LONG * 2 ** (attempt - 1)


def memory_mb(config: Mapping[str, Any], asked: Asked, input_mb: float, attempt: int) -> int:
    """Returns the memory to ask for, in MB, which doubles with every attempt.

    Arguments:
        config: The configuration.
        asked: What the job does.
        input_mb: The size of the job's input, in MiB.
        attempt: 1 at first, 2 after a failure.
    """
    activations = 0.0 if gpus(config) else asked.activations_mb
    each = math.ceil(BASE_MB + 4 * min(input_mb, asked.held_mb) + activations)
    return each * 2 ** (attempt - 1) * asked.processes
