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

from diem.em.laps import lap_number
from diem.errors import DiemError
from diem.evaluation.metrics import METRICS
from diem.planning.experiment import Experiment
from diem.planning.stages import RestorationPrior
from diem.planning.work import FLOAT, Amounts, Kinds, samples_by_split
from diem.replicates import all_entries

__all__ = [
    "Asked",
    "e_step",
    "evaluation",
    "gaussian_fit",
    "gpus",
    "long_minutes",
    "memory_mb",
    "minutes",
    "on_slurm",
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

PIECES_MB = 256.0
"""Finished work that a job holds until it is written, at most."""

PRIOR_MB = 1024.0
"""A prior's file, at most: of a network of some 250 million weights."""

BASE_MB = 3000.0
"""Memory of Python, PyTorch and, on a GPU, its libraries."""


@dataclass(frozen=True)
class Asked:
    """What a job does, as far as its limits depend on it.

    Arguments:
        flops: The floating-point operations of its networks, in all of its processes.
        activations_mb: What a network keeps of a batch for a backward pass, in MiB.
        held_mb: The most that it holds of its input, in MiB, beside the share.
        processes: Its processes on a machine, each with as many threads, and with a GPU where there
            are any.
        nodes: Its machines.
        share: The share of its input that it holds.
        beside_mb: What else it holds, in MiB.
    """

    flops: float = 0.0
    activations_mb: float = 0.0
    held_mb: float = math.inf
    processes: int = 1
    nodes: int = 1
    share: float = 0.0
    beside_mb: float = 0.0


def e_step(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """A shard of an E-step: of a job with the names ``experiment``, ``run`` and ``lap``."""
    experiment, run = Experiment(config, names["experiment"]), names["run"]
    settings = experiment.entry["runs"][run]["e_step"]
    # The first lap's draws are exact, and nothing tells their time: they ask for the second's.
    lap = max(2, lap_number(names["lap"]))
    flops = _flops(experiment.kinds, experiment.entry["data"], lambda: experiment.e_step(run, lap))
    batch = settings["batch"] or settings["block"]
    held = PRIOR_MB + PIECES_MB
    share = _share(experiment, settings["block"])
    return Asked(
        flops / config["shards"], _activations_mb(experiment.kinds, batch), held, share=share
    )


def gaussian_fit(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """The fit of a Gaussian prior: of a job with the names ``experiment`` and ``observations``."""
    experiment = Experiment(config, names["experiment"])
    fitted = experiment.entry["gaussian"]["observations"]
    drawn = FLOAT * fitted * math.prod(experiment.shape) / MIB  # a sample of each
    return Asked(held_mb=drawn, share=_share(experiment, fitted))


def training(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """An M-step: ``experiment``, ``run`` and ``lap``; or a ceiling: ``experiment`` and ``run``."""
    experiment = Experiment(config, names["experiment"])
    kinds, data = experiment.kinds, experiment.entry["data"]
    run = names["run"]
    if "lap" in names:
        flops = _flops(kinds, data, lambda: experiment.m_step(run, lap_number(names["lap"])))
    else:
        flops = _flops(kinds, data, lambda: experiment.ceiling(run))
    return _training(config, kinds, experiment.entry["runs"][run]["m_step"], flops)


def restoration_training(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """The training of the prior of a comparison of restorations: ``comparison``."""
    prior = RestorationPrior(all_entries(config, "restoration")[names["comparison"]])
    flops = _flops(prior.kinds, prior.data, prior.training)
    return _training(config, prior.kinds, prior.kinds.entry["m_step"], flops)


def evaluation(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """An evaluation: ``experiment``, and ``run`` and ``lap`` or ``observations`` of a bound.

    A floor has no ``run``. It is exact, and asks for what a ceiling does.
    """
    experiment = Experiment(config, names["experiment"])
    run = experiment.entry["runs"].get(names.get("run"), experiment.entry)
    observations, e_step = names.get("observations") or run["observations"], run["e_step"]
    return _evaluated(experiment, lambda: experiment.evaluation(observations, e_step))


def reconstruction(config: Mapping[str, Any], names: Mapping[str, str]) -> Asked:
    """A reconstruction: ``experiment``, ``run`` and ``observations``."""
    experiment = Experiment(config, names["experiment"])
    observations, run = names["observations"], names["run"]
    return _evaluated(experiment, lambda: experiment.reconstruction(observations, run))


def _share(experiment: Experiment, observations: int) -> float:
    """Returns which share of all observations some are, or all where nothing tells."""
    try:
        return min(1.0, observations / experiment.total)
    except DiemError:
        return 1.0


def _flops(kinds: Kinds, data: Mapping[str, Any], work: Callable[[], Amounts]) -> float:
    try:
        samples_by_split(data)
    except DiemError:
        # Files that are not there do not tell how many data they hold: the job that reads them
        # tells the user.
        return 0.0
    return kinds.flops(work())


def _training(
    config: Mapping[str, Any], kinds: Kinds, m_step: Mapping[str, Any], flops: float
) -> Asked:
    fitted = kinds.entry["gaussian"]["observations"] * math.prod(kinds.shape)
    held = config["cache_mb"] + FLOAT * fitted / MIB
    activations = _activations_mb(kinds, m_step["batch"])
    return Asked(flops, activations, held, m_step["processes"], m_step["nodes"])


def _evaluated(experiment: Experiment, work: Callable[[], Amounts]) -> Asked:
    held = 2 * experiment.config["cache_mb"]  # the test split, and an E-step's samples
    activations = _activations_mb(experiment.kinds, experiment.entry["evaluation"]["block"])
    flops = _flops(experiment.kinds, experiment.entry["data"], work)
    settings = experiment.entry["evaluation"]
    metrics = [METRICS.parse(entry).memory(settings) for entry in settings["metrics"]]
    return Asked(flops, activations, held, beside_mb=max(metrics) / MIB)


def _activations_mb(kinds: Kinds, batch: int) -> float:
    return FLOAT * kinds.activations(batch) / MIB


def gpus(config: Mapping[str, Any], processes: int = 1) -> int:
    """Returns the GPUs to ask for: one a process, unless the configuration has none to use."""
    device = config["device"]
    return processes if device == "auto" or device.startswith("cuda") else 0


def on_slurm(config: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """Returns what a job of several machines asks Slurm for, none of a job of one.

    Snakemake's plugin starts a job with ``mpi`` in the batch step of its first node, and leaves it
    to the job to start what runs on the others. There is a task a node, and ``gres`` is counted by
    the node, where ``gpu`` could be given unevenly.
    """
    if asked.nodes == 1:
        return {}
    count = gpus(config, asked.processes)
    gres = {"gres": f"gpu:{count}", "tasks_per_gpu": 0} if count else {}
    return {"nodes": asked.nodes, "tasks": asked.nodes, "mpi": "srun", **gres}


def minutes(config: Mapping[str, Any], asked: Asked, attempt: int) -> int:
    """Returns the limit of time to ask for, which doubles with every attempt.

    Arguments:
        config: The configuration.
        asked: What the job does.
        attempt: 1 at first, 2 after a failure.
    """
    rate = gpus(config) * RATES["gpu"] or config["threads"] * RATES["cpu"]
    spent = asked.flops / (rate * asked.processes * asked.nodes) / 60
    return math.ceil(START + spent) * 2 ** (attempt - 1)


def long_minutes(attempt: int) -> int:
    """Returns the limit of time of a job whose work the configuration tells badly."""
    return LONG * 2 ** (attempt - 1)


def memory_mb(config: Mapping[str, Any], asked: Asked, input_mb: float, attempt: int) -> int:
    """Returns the memory to ask for on each machine, in MB, which doubles with every attempt.

    Arguments:
        config: The configuration.
        asked: What the job does.
        input_mb: The size of the job's input, in MiB.
        attempt: 1 at first, 2 after a failure.
    """
    activations = 0.0 if gpus(config) else asked.activations_mb
    held = min(input_mb, asked.held_mb + asked.share * input_mb)
    each = math.ceil(BASE_MB + 4 * held + asked.beside_mb + activations)
    return each * 2 ** (attempt - 1) * asked.processes
