"""What a configuration will cost: FLOPs, hours and disk, before any of it is spent.

The work of every stage is made of a few kinds: an evaluation of the posterior denoiser, one of the
prior's, an optimizer step, and so on. A calibration runs each kind for a moment, with the real
networks, operators and batch sizes on the user's own device and random numbers in the place of the
data; its FLOPs are counted and its seconds measured. The rest is multiplication. No data set is
read or allocated, nothing is downloaded. Nothing is compiled either, which can take longer than all
of it: with ``compile: true`` the hours are those without.

A front end needs two lines, with the configuration as :func:`diem.config.resolve.resolve` returns it::

    rows = estimate(config)
    print(text(readable(rows)))
"""

import functools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule, VPSchedule
from tabulate import tabulate
from torch import Tensor

from diem import operators
from diem.config.resolve import (
    OWN,
    ceiling_training,
    evaluated_laps,
    merge,
    posterior_settings,
    training_of_lap,
)
from diem.data.observations import Observations, Observed, users_observations
from diem.data.sets import DATASETS
from diem.data.simulate import observe
from diem.diffusion.denoisers import Prior, build_denoiser, load_prior
from diem.diffusion.gaussian import DENSE_SIZE, Gaussian, fit_to_observations
from diem.em.e_step import PosteriorSampler, Sampler, sample_prior
from diem.em.m_step import CHUNK, Training, train
from diem.errors import DiemError, nearest
from diem.evaluation import metrics
from diem.inference.priors import rows_of
from diem.jobs.job import Job, select_device
from diem.networks import NETWORKS
from diem.paper.heuristics.divergences import divergences
from diem.paper.methods import METHODS, Problem
from diem.paper.restoration.prior import architecture
from diem.paper.restoration.restore import SHOWN, restore
from diem.planning.flops import FlopCounter
from diem.report.tables import NONE, Readable, rounded
from diem.seeds import Stage, rng, torch_generator

__all__ = [
    "PEAKS",
    "SUSTAINED",
    "Cost",
    "Work",
    "data_size",
    "estimate",
    "job_seconds",
    "measure",
    "readable",
    "text",
]

PEAKS = {
    "V100": 125.0,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX4090": 165.0,
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
}
"""Peaks of dense products of matrices in 16 bits with sums in 32, in TFLOP/s, as published by the
manufacturer (without sparsity)."""

SUSTAINED = 0.2
"""The share of the peak that a GPU of :data:`PEAKS` is assumed to sustain. It is an assumption, and
nothing that was measured: give the rate as a number where it is known."""

FLOAT = 4
"""Bytes of a value on disk."""

REPEATS = 5
"""The most times that a kind of work is timed; the median counts."""


class Cost(NamedTuple):
    """What one item of some work costs.

    Attributes:
        flops: Its floating-point operations, as PyTorch's counter counts them.
        seconds: Its time.
    """

    flops: float
    seconds: float


@dataclass(frozen=True)
class Work:
    """A kind of work, which is measured once however many stages do it.

    Arguments:
        key: What its cost depends on.
        most: The most items that it is worth to do at once.
        prepare: Returns a function that does about ``n`` items, and returns how many it did.
    """

    key: str
    most: int
    prepare: Callable[[torch.device], Callable[[int], float]] = field(compare=False)


@dataclass
class _Stage:
    """A row before its costs are known.

    Arguments:
        experiment: The name of the experiment or comparison.
        stage: The stage.
        name: The run, where the stage has several.
        jobs: The number of jobs.
        work: Kinds of work and how many items of each.
        size: What it writes, in bytes; of what is removed again, the most that is there at once.
        network: Whether the network is nearly all of it, so that FLOPs tell the time elsewhere.
    """

    experiment: str
    stage: str
    name: str
    jobs: int
    work: list[tuple[Work, float]]
    size: float
    network: bool = True


def estimate(
    config: Mapping[str, Any],
    seconds: float = 25.0,
    gpu: str | float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[dict[str, Any]]:
    """Plans a configuration: what each stage will cost.

    The calibration uses PyTorch's current number of threads; a job of the workflow uses the
    config's ``threads``.

    Arguments:
        config: The configuration, with every default and run filled in.
        seconds: About how long the calibration may take, beside its imports. A kind of work that
            takes longer than its share is done once, on a single sample; the fixed cost of an
            optimizer step is then that sample's, and the time is too long rather than too short.
        gpu: A name of :data:`PEAKS`, or a sustained rate in TFLOP/s. The config's
            ``estimate_gpu`` is the default.
        clock: Tells the seconds of the calibration. ``time.process_time`` tells those of a CPU that
            is shared with others as if it were not.

    Returns:
        The rows, from first to last stage: ``experiment``, ``stage``, ``run``, ``jobs``, ``flops``,
        ``hours`` (on this machine, one job after another), ``gpu`` and ``gpu_tflops`` (the rate),
        ``gpu_hours`` (none where the network is not nearly all of the work), ``bytes`` (of samples
        that are not kept, the most that is there at once), and how the hours were found:
        ``device``, ``threads``, ``job_seconds`` (the fixed cost of a job) and
        ``calibration_seconds``.

    Raises:
        DiemError: If the GPU is unknown, or the size of the data cannot be known.
    """
    began = time.monotonic()
    gpu = config["estimate_gpu"] if gpu is None else gpu
    rate = _rate(gpu)
    device = select_device(config["device"])
    stages = list(_stages(config))
    if not stages:
        raise DiemError("The configuration has nothing to plan.")
    kinds = list(dict.fromkeys(work for stage in stages for work, _ in stage.work))
    fixed = job_seconds()
    with FlopCounter():  # the first use imports what takes seconds
        torch.ones(1, 1) @ torch.ones(1, 1)
    costs, ends = {}, clock() + seconds
    for number, work in enumerate(kinds):
        # What long work leaves is shared by the rest, and never so little that a call's own cost
        # would be taken for that of its samples.
        share = max((ends - clock()) / (len(kinds) - number), seconds / (4 * len(kinds)))
        costs[work] = measure(work, share, device, clock)
    spent = time.monotonic() - began

    rows = []
    for stage in stages:
        flops = sum(count * costs[work].flops for work, count in stage.work)
        busy = sum(count * costs[work].seconds for work, count in stage.work)
        elsewhere = (flops / (rate * 1e12) + stage.jobs * fixed) / 3600
        rows.append(
            {
                "experiment": stage.experiment,
                "stage": stage.stage,
                "run": stage.name,
                "jobs": stage.jobs,
                "flops": flops,
                "hours": (busy + stage.jobs * fixed) / 3600,
                "gpu": str(gpu),
                "gpu_tflops": rate,
                "gpu_hours": elsewhere if stage.network else None,
                "bytes": stage.size,
                "device": str(device),
                "threads": torch.get_num_threads(),
                "job_seconds": fixed,
                "calibration_seconds": spent,
            }
        )
    return rows


def readable(rows: list[dict[str, Any]]) -> Readable:
    """Returns the rows of :func:`estimate` for the eye, with their sum below."""
    first = rows[0]
    name = first["gpu"] if first["gpu"] in PEAKS else f"{first['gpu_tflops']:g} TFLOP/s"
    header = [["Experiment"], ["Stage"], ["Run"], ["Jobs"], ["FLOPs"], ["Time here"]]
    header += [[f"Time at {name}"], ["Disk"]]
    parts = ("jobs", "flops", "hours", "gpu_hours", "bytes")
    total = {part: sum(row[part] or 0 for row in rows) for part in parts}
    body = [
        [
            *(row["experiment"], row["stage"], row["run"] or NONE, f"{row['jobs']:,}"),
            f"{row['flops']:.2e}" if row["flops"] else NONE,
            _duration(row["hours"]),
            NONE if row["gpu_hours"] is None else _duration(row["gpu_hours"]),
            _size(row["bytes"]),
        ]
        for row in [*rows, {"experiment": "all", "stage": "", "run": "", **total}]
    ]
    assumed = (
        f" is {SUSTAINED:.0%} of the published peak of {PEAKS[first['gpu']]:g} (dense, 16 bits), an"
        " assumption"
        if first["gpu"] in PEAKS
        else " is the config's"
    )
    notes = [
        f"Time here: one job after another on {first['device']} with {first['threads']} threads,"
        f" from a calibration of {first['calibration_seconds']:.0f} s; {first['job_seconds']:.1f} s"
        " of each job are its start.",
        f"The rate of {first['gpu_tflops']:g} TFLOP/s{assumed}; stages without a time there are not"
        " the network's.",
        "Disk: of samples that are not kept (keep_samples: false), the most that is there at once.",
        "Not in it: downloads, compilation and what it saves, the metrics' own time, tables,"
        " figures, logs, what unfinished jobs keep to go on with.",
    ]
    return Readable(header, body, 3, notes)


def text(table: Readable) -> str:
    """Returns a table for a terminal."""
    header = [" ".join(lines) for lines in table.header]
    words = table.text_columns
    sides = ["left"] * words + ["right"] * (len(header) - words)
    grid = tabulate(table.body, header, "simple", colalign=sides, disable_numparse=True)
    return "\n".join([grid, "", *table.notes])


def _duration(hours: float) -> str:
    seconds = 3600 * hours
    if seconds < 90:
        return f"{rounded(seconds)} s"
    return f"{rounded(seconds / 60)} min" if seconds < 5400 else f"{rounded(hours)} h"


def _size(count: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{rounded(count / scale)} {unit}"
    return f"{rounded(count / 1e3)} kB" if count else NONE


def _rate(gpu: str | float) -> float:
    """Returns a rate in TFLOP/s."""
    if not isinstance(gpu, str):
        return float(gpu)
    if gpu not in PEAKS:
        raise DiemError(
            f"estimate_gpu: {gpu!r} is unknown{nearest(gpu, PEAKS)}; a number is taken as its"
            " sustained TFLOP/s."
        )
    return SUSTAINED * PEAKS[gpu]


# The calibration


def measure(
    work: Work,
    seconds: float,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Measures what one item of some work costs.

    The number of items grows to the work's own, or to what fits in the time. Those runs warm up,
    and are counted; where there is time, others are timed.

    Arguments:
        work: The kind of work.
        seconds: About how long this may take.
        device: The device.
        clock: Tells the seconds.
    """
    run = work.prepare(device)

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
        larger = min(work.most, int(count * seconds / (4 * spent)))
        if larger <= count or larger < min(2 * count, work.most):
            break
        count = larger
    flops = counter.get_total_flops() / done
    times = []
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
        each = entry.get("samples", 1)  # chains of one observation, side by side
        with _own(entry) as file:
            some = file.load(file.splits()[0], slice(math.ceil(count / each))).to(device)
        rows = torch.arange(min(count, each * len(some.y)), device=device) // each
        return rows_of(some, rows).scaled(entry["offset"], entry["scale"])
    x = gaussian.sample(count, torch_generator(0, Stage.DATA, device=device)).cpu()
    operator = operators.simulate(entry["operator"], tuple(x.shape[1:]), count, stream)
    sigma_y = torch.tensor(entry["sigma_y"], dtype=torch.float32)
    if sigma_y.ndim > 0:
        sigma_y = sigma_y.reshape(operator.observation_shape)
    y = observe(operator, x, sigma_y, stream)
    return Observed(operator, y, sigma_y, stream.permutation(count)).to(device)


def _own(entry: Mapping[str, Any]) -> Observations:
    """Opens the user's own observations."""
    operator = entry.get("operator", {}).get("name")
    return users_observations(entry["path"], operator, entry.get("sigma_y"))


@dataclass(frozen=True)
class _Parts:
    """The kinds of work of one experiment.

    Arguments:
        entry: The experiment's entry.
        shape: The event's shape.
    """

    entry: Mapping[str, Any]
    shape: tuple[int, ...]

    def _key(self, kind: str, *settings: Any) -> str:
        return json.dumps([kind, self.shape, *settings], sort_keys=True)

    def _prior(self, device: torch.device) -> Prior:
        network, schedule = self.entry["network"], self.entry["schedule"]
        denoiser = build_denoiser(network, schedule, self.shape, seed=0)
        denoiser = denoiser.to(device).eval().requires_grad_(False)
        return Prior(_gaussian(self.shape, self.entry["gaussian"]["rank"], device), denoiser, {})

    def observing(self, observations: Mapping[str, Any]) -> Work:
        """The simulation of one observation."""

        def prepare(device: torch.device) -> Callable[[int], float]:
            gaussian = _gaussian(self.shape, 1, torch.device("cpu"))

            def run(count: int) -> float:
                return len(_observed(observations, gaussian, count).y)

            return run

        return Work(self._key("observing", observations), 1024, prepare)

    def exact(self, observations: Mapping[str, Any], most: int) -> Work:
        """An exact posterior draw of the Gaussian prior."""
        rank = self.entry["gaussian"]["rank"]

        def prepare(device: torch.device) -> Callable[[int], float]:
            gaussian = _gaussian(self.shape, rank, device)
            there = functools.cache(lambda count: _observed(observations, gaussian, count))

            def run(count: int) -> float:
                o, generator = there(count), torch_generator(0, Stage.E_STEP, device=device)
                gaussian.sample_posterior(o.operator, o.y, o.sigma_y, generator)
                return len(o.y)

            return run

        return Work(self._key("exact", rank, observations, most), most, prepare)

    def fitting(self, observations: Mapping[str, Any]) -> Work:
        """One observation's part of one iteration of the fit of the Gaussian."""
        if math.prod(self.shape) > DENSE_SIZE:
            # An iteration draws one exact sample an observation, and that is nearly all of it.
            return self.exact(observations, self.entry["e_step"]["block"])
        gaussian = self.entry["gaussian"]
        rank = gaussian["rank"]

        def prepare(device: torch.device) -> Callable[[int], float]:
            source = _gaussian(self.shape, rank, device)
            there = functools.cache(lambda count: _observed(observations, source, count))

            def run(count: int) -> float:
                o, generator = there(count), torch_generator(0, Stage.GAUSSIAN, device=device)
                fit_to_observations(o.operator, o.y, o.sigma_y, rank, 2, generator)
                return 2 * len(o.y)

            return run

        return Work(self._key("fitting", gaussian, observations), gaussian["observations"], prepare)

    def posterior(self, observations: Mapping[str, Any], e_step: Mapping[str, Any]) -> Work:
        """One evaluation of a posterior denoiser, with the sampler's part of it."""
        e_step = {**e_step, "compile": False}
        sampler, block = PosteriorSampler.from_config(e_step), e_step["block"]
        per_step = 1 + sampler.sampler.corrections * (sampler.sampler.name == "pc")

        def prepare(device: torch.device) -> Callable[[int], float]:
            prior = self._prior(device)
            there = functools.cache(lambda count: _observed(observations, prior.gaussian, count))

            def run(count: int) -> float:
                batch = min(count, block)
                steps = (count // batch - 1) // per_step
                short = replace(sampler, sampler=replace(sampler.sampler, steps=steps))
                o, generator = there(batch), torch_generator(0, Stage.E_STEP, device=device)
                short(prior, o.operator, o.y, o.sigma_y, generator)
                return len(o.y) * short.sampler.evaluations

            return run

        # The level of missing pixels, the noise and the number of steps are of no weight.
        settings = {**e_step, "sampler": {**e_step["sampler"], "steps": 0}}
        settings = {key: settings[key] for key in settings if key not in ("repeats", "restart")}
        parts = ("network", "schedule", "gaussian")
        operator = observations.get("path") or observations["operator"]["name"]
        fixed = [operator, observations.get("samples"), *(self.entry[part] for part in parts)]
        return Work(self._key("posterior", settings, *fixed), 17 * block, prepare)

    def prior(self, block: int, sampler: Mapping[str, Any]) -> Work:
        """One evaluation of the prior's denoiser, with the sampler's part of it."""
        sampler = Sampler(**sampler)
        per_step = 1 + sampler.corrections * (sampler.name == "pc")

        def prepare(device: torch.device) -> Callable[[int], float]:
            prior = self._prior(device)

            def run(count: int) -> float:
                batch = min(count, block)
                steps = (count // batch - 1) // per_step
                short = replace(sampler, steps=steps)
                generator = torch_generator(0, Stage.PRIOR, device=device)
                sample_prior(prior, batch, short, generator)
                return batch * short.evaluations

            return run

        fixed = [self.entry["network"], self.entry["schedule"], sampler.name, sampler.corrections]
        return Work(self._key("prior", block, *fixed), 17 * block, prepare)

    def training(self, m_step: Mapping[str, Any]) -> Work:
        """One sample's part of an optimizer step."""
        m_step = {**m_step, "compile": False}
        batch = m_step["batch"]

        def prepare(device: torch.device) -> Callable[[int], float]:
            network, schedule = self.entry["network"], self.entry["schedule"]
            denoiser = build_denoiser(network, schedule, self.shape, seed=0).to(device)

            def run(count: int) -> float:
                size = min(count, batch)
                settings = {**m_step, "steps": max(1, count // size), "batch": size, "epochs": None}
                training = Training.from_config(settings, size)
                x = torch.randn(size, *self.shape, device=device)
                train(denoiser, x, x[:1], training, seed=0)
                # The validation loss of one sample, before and after the steps, is a forward pass
                # each, a third of its training.
                return size * training.steps + 2 / 3

            return run

        lengths = ("steps", "epochs", "first", "final", "final_decay")
        kept = {key: m_step[key] for key in m_step if key not in lengths}
        fixed = [self.entry["network"], self.entry["schedule"]]
        return Work(self._key("training", kept, *fixed), CHUNK * batch, prepare)

    def training_work(
        self, m_step: Mapping[str, Any], samples: int, validation: int
    ) -> list[tuple[Work, float]]:
        """The optimizer steps of a training on some samples, and its validation losses."""
        steps = Training.from_config(m_step, samples).steps
        sampler = {"name": "ddim", "steps": 1}
        check = self.prior(m_step["batch"], sampler)
        return [
            (self.training(m_step), steps * m_step["batch"]),
            (check, validation * (1 + math.ceil(steps / CHUNK))),
        ]

    def prior_size(self, trained: bool = True) -> float:
        """The bytes of a prior: its Gaussian and its network's weights."""
        values = math.prod(self.shape) * (1 + self.entry["gaussian"]["rank"])
        return FLOAT * (values + (_weights(self.entry["network"], self.shape) if trained else 0))


def _weights(network: Mapping[str, Any], shape: tuple[int, ...]) -> int:
    """Returns the number of a network's weights, without allocating them."""
    with torch.device("meta"):
        return sum(w.numel() for w in NETWORKS.parse(network).build(shape).parameters())


# The stages


def data_size(data: Mapping[str, Any]) -> tuple[tuple[int, ...], dict[str, int]]:
    """Returns the event's shape and the number of samples by split, from the config alone.

    Of fastMRI every volume is taken to have all the slices that are asked for, and an archive to
    be the official one.

    Arguments:
        data: The config's ``data`` entry.

    Raises:
        DiemError: If only files can tell, and they are not there.
    """
    found = DATASETS.parse(data)
    return found.event_shape(), found.counts()


def _stages(config: Mapping[str, Any]) -> Iterator[_Stage]:
    for name, entry in config["experiments"].items():
        yield from _experiment(name, entry, config["shards"], config["keep_samples"])
    for name, entry in config["heuristics"].items():
        yield _heuristics(name, entry)
    for name, entry in config["restoration"].items():
        yield from _comparison(name, entry)
    for name, entry in config["posterior"].items():
        yield _posterior(name, entry, config["experiments"])


def _laps_held(entry: Mapping[str, Any], run: str) -> int:
    """Returns of how many laps of a run the samples are there at once, where they are not kept.

    Snakemake prefers jobs after which samples can go, so that an evaluation comes first, or beside
    the next E-step.
    """
    laps, e_step = entry["runs"][run]["laps"], entry["runs"][run]["e_step"]
    # The second lap does not start from the first one's samples.
    restarts = e_step["restart"] is not None and laps > 2
    return 2 if restarts or len(evaluated_laps(entry, run)) > 1 else 1


def _experiment(
    name: str, entry: Mapping[str, Any], shards: int, keep_samples: bool
) -> Iterator[_Stage]:
    shape, counts = data_size(entry["data"])
    parts, event = _Parts(entry, shape), FLOAT * math.prod(shape)
    total = sum(counts.values())
    evaluation, runs = entry["evaluation"], entry["runs"]
    used = dict.fromkeys(run["observations"] for run in runs.values())
    observed = dict.fromkeys([*used, *evaluation["reconstruct"]])
    of = {key: entry["observations"][key] for key in observed}
    own = entry["data"]["name"] == OWN
    if own:
        path = entry["data"]["path"]
        file = {key: entry["data"][key] for key in ("path", "offset", "scale")}
        of = {key: {**value, **file} for key, value in of.items()}
        sizes = dict.fromkeys(observed, Path(path).stat().st_size / total)
    else:
        sizes = {key: _observation_size(of[key], shape) for key in observed}

    yield _Stage(
        *(name, "observations", "", len(observed) + (not own)),
        [] if own else [(parts.observing(of[key]), total) for key in observed],
        total * (sum(sizes.values()) + (0 if own else event)),
        network=False,
    )
    fitted = min(counts["train"], entry["gaussian"]["observations"])
    yield _Stage(
        *(name, "Gaussian fit", "", len(used)),
        [(parts.fitting(of[key]), fitted * entry["gaussian"]["iterations"]) for key in used],
        len(used) * parts.prior_size(trained=False),
        network=False,
    )

    for key, run in runs.items():
        e_step, laps = run["e_step"], run["laps"]
        observations, sampler = of[run["observations"]], PosteriorSampler.from_config(e_step)
        sampled = {split: counts[split] for split in ("train", "validation")}
        if e_step["drop_last"]:
            sampled = {k: v - v % e_step["block"] for k, v in sampled.items()}
        sampled = {k: v * e_step["repeats"] for k, v in sampled.items()}
        each = sum(sampled.values())
        work = [(parts.exact(observations, e_step["block"]), each)]
        if laps > 1:
            evaluations = (laps - 1) * each * sampler.sampler.evaluations
            work.append((parts.posterior(observations, e_step), evaluations))
        held = laps if keep_samples else _laps_held(entry, key)
        yield _Stage(name, "E-steps", key, laps * shards, work, held * each * (event + 8))

        work = []
        for lap in range(1, laps + 1):
            m_step = training_of_lap(run["m_step"], lap, laps)
            work += parts.training_work(m_step, sampled["train"], sampled["validation"])
        yield _Stage(name, "M-steps", key, laps, work, laps * parts.prior_size())

    if not own:
        yield _Stage(
            *(name, "ceiling", "", 1),
            parts.training_work(ceiling_training(entry), counts["train"], counts["validation"]),
            parts.prior_size(),
        )

    shown = min(evaluation["test_observations"], counts["test"])
    draws = shown * evaluation["posterior_samples"]
    drawn = draws
    if "prediction" in evaluation["metrics"]:
        hidden = min(evaluation["predicted_observations"], counts["test"])
        drawn += hidden * evaluation["posterior_samples"]
    prior = parts.prior(evaluation["block"], evaluation["sampler"])
    priors = evaluation["samples"] * Sampler(**evaluation["sampler"]).evaluations
    laps = {key: len(evaluated_laps(entry, key)) for key in runs}
    evaluated = [(run["observations"], run["e_step"], laps[key]) for key, run in runs.items()]
    ceilings = [] if own else [(key, entry["e_step"], 1) for key in used]
    work = [(prior, (sum(laps.values()) + len(ceilings)) * priors)]
    for key, e_step, count in [*evaluated, *ceilings]:
        sampler = PosteriorSampler.from_config(e_step).sampler
        work.append((parts.posterior(of[key], e_step), count * drawn * sampler.evaluations))
    floors = [(parts.exact(of[key], entry["e_step"]["block"]), drawn) for key in used]
    size = evaluation["samples"] * event + draws * event
    bounds = 1 if own else 2
    jobs = {key: sum(n for of_run, _, n in evaluated if of_run == key) + bounds for key in used}
    yield _Stage(
        *(name, "evaluation", "", sum(jobs.values())),
        work + floors,
        sum(n * (size + shown * (bounds * event + sizes[key])) for key, n in jobs.items()),
    )

    if evaluation["reconstruct"]:
        work = []
        for key in evaluation["reconstruct"]:
            for run in runs.values():
                sampler = PosteriorSampler.from_config(run["e_step"]).sampler
                amount = draws * sampler.evaluations
                work.append((parts.posterior(of[key], run["e_step"]), amount))
        count = len(evaluation["reconstruct"]) * len(runs)
        rest = [sizes[key] for key in evaluation["reconstruct"]]
        yield _Stage(
            *(name, "reconstructions", "", count),
            work,
            count * (draws + 2 * shown) * event + len(runs) * shown * sum(rest),
        )


def _observation_size(observations: Mapping[str, Any], shape: tuple[int, ...]) -> float:
    """Returns the bytes of one observation on disk, with its operator and its index."""
    operator = operators.simulate(observations["operator"], shape, 4, rng(0, Stage.CORRUPTION))
    own = [v for v in operator.parameters.values() if len(v) == 4]
    parameters = sum(v.nbytes for v in own) / 4
    return FLOAT * math.prod(operator.observation_shape) + parameters + 8


def _heuristics(name: str, entry: Mapping[str, Any]) -> _Stage:
    """The comparison under an exact prior: two kinds of work, neither of which is a network's."""
    small = {**entry, "samples": 8, "iterations": 1, "sigmas": [0.5]}

    def sampling(device: torch.device) -> Callable[[int], float]:
        def run(count: int) -> float:
            settings = {**small, "prior_samples": max(count, 64)}
            divergences(name, settings, [1], Job(device=device))
            return settings["prior_samples"]

        return run

    def transport(device: torch.device) -> Callable[[int], float]:
        device = torch.device("cpu") if device.type == "mps" else device
        settings = {key: entry[key] for key in ("regularization", "tolerance")}

        def run(count: int) -> float:
            side, iterations = max(8, math.isqrt(count // 8)), 8
            x = torch.randn(2, side, entry["dimensions"], dtype=torch.float64, device=device)
            metrics.truncated_transport(*x, **{**settings, "tolerance": 0}, iterations=iterations)
            return side**2 * iterations

        return run

    levels = entry["cases"] * len(entry["sigmas"])
    plans = levels * (2 + len(entry["covariances"]))
    drawn = levels * entry["prior_samples"] + entry["coil"]["prior_samples"]
    pairs = plans * entry["samples"] ** 2 * entry["iterations"]
    settings = json.dumps(entry, sort_keys=True)
    jobs = math.ceil(entry["cases"] / entry["block"]) + 1
    kept = entry["coil"]["samples"] * (3 + len(entry["covariances"]))
    return _Stage(
        *(name, "heuristics", "", jobs),
        [
            (Work(f"heuristics {settings}", entry["prior_samples"], sampling), drawn),
            (Work(f"transport {settings}", 8 * entry["samples"] ** 2, transport), pairs),
        ],
        FLOAT * entry["dimensions"] * kept,
        network=False,
    )


def _posterior(name: str, entry: Mapping[str, Any], experiments: Mapping[str, Any]) -> _Stage:
    """The posterior samples of a file of observations, by a run's prior or one in a file."""
    prior, where = entry["prior"], f"posterior.{name}"
    try:
        card = _card(prior, experiments)
    except DiemError as error:
        raise DiemError(f"{where}.prior: {error}") from None
    data = card.get("data", {})
    observations = {
        "path": entry["observations"],
        "operator": {"name": entry.get("operator")},
        "sigma_y": entry.get("sigma_y"),
        "samples": entry["samples"],
        "offset": data.get("offset", 0.0),
        "scale": data.get("scale", 1.0),
    }
    try:
        with _own(observations) as file:
            count, shape = len(file), file.event_shape
    except DiemError as error:
        raise DiemError(f"{where}.observations: {error}") from None
    parts, drawn = _Parts(card, shape), count * entry["samples"]
    if "network" in card:
        e_step = merge(card.get("e_step", {"sampler": {}}), posterior_settings(entry))
        e_step |= {"block": entry["batch"], "batch": None}
        evaluations = PosteriorSampler.from_config(e_step).sampler.evaluations
        work = [(parts.posterior(observations, e_step), drawn * evaluations)]
    else:
        work = [(parts.exact(observations, entry["batch"]), drawn)]
    kept = FLOAT * math.prod(shape) * (entry["samples"] + 2) + 8
    return _Stage(name, "posteriors", "", 1, work, count * kept, network="network" in card)


def _card(prior: str | Mapping[str, Any], experiments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the card of a prior tells, or will tell, of what its samples cost."""
    if isinstance(prior, str):
        made = load_prior(prior)
        return {**made.card, "gaussian": {"rank": made.gaussian.factors.shape[-1]}}
    entry = experiments[prior["experiment"]]
    parts = ("data", "gaussian", "network", "schedule")
    card = {part: entry[part] for part in parts[: 2 if prior["lap"] == 0 else 4]}
    return {**card, "e_step": entry["runs"][prior["run"]]["e_step"]}


class _Counted(Denoiser):
    """A denoiser that costs nothing, and counts what it is asked for."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        self.evaluations = self.products = 0

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        self.evaluations += 1
        mean = x_t / 2
        if mean.requires_grad:
            mean.register_hook(self._product)
        return DiracPosterior(mean=mean)

    def _product(self, gradient: Tensor) -> None:
        self.products += 1


def _comparison(name: str, entry: Mapping[str, Any]) -> Iterator[_Stage]:
    shape, counts = data_size(entry["data"])
    event, total = FLOAT * math.prod(shape), sum(counts.values())
    yield _Stage(name, "observations", "", 1, [], total * event, network=False)
    batch = min(entry["block"], entry["images"])
    if "train" in entry:
        parts = _Parts(entry["train"], shape)
        m_step = training_of_lap(entry["train"]["m_step"], 1, 1)
        work = parts.training_work(m_step, counts["train"], counts["validation"])
        yield _Stage(name, "prior", "", 1, work, parts.prior_size())
        key, build = json.dumps(entry["train"], sort_keys=True), parts._prior

        def network(device: torch.device) -> Denoiser:
            return build(device).denoiser

    else:
        key = entry["pretrained"]["name"]

        def network(device: torch.device) -> Denoiser:
            denoiser = architecture(key)
            return denoiser.to(device).eval().requires_grad_(False)

    def evaluation(device: torch.device, products: bool) -> Callable[[int], float]:
        denoiser = network(device)

        def run(count: int) -> float:
            x = torch.randn(min(count, batch), *shape, device=device, requires_grad=products)
            with torch.set_grad_enabled(products):
                mean = denoiser(x, torch.tensor(0.5, device=device)).mean
            if products:
                torch.autograd.grad(mean, x, mean.detach())
            return len(x)

        return run

    alone = Work(f"evaluation {batch} {shape} {key}", batch, lambda d: evaluation(d, False))
    both = Work(f"product {batch} {shape} {key}", batch, lambda d: evaluation(d, True))
    restored = len(entry["tasks"]) * entry["images"]
    for method, settings in entry["methods"].items():
        evaluations, products = _calls(settings)
        steps = restored * sum(entry["steps"])
        # A product's cost is that of both without the evaluation's.
        work = [(both, steps * products), (alone, steps * (evaluations - products))]
        shown = min(SHOWN, batch) * len(entry["tasks"])
        yield _Stage(name, "restoration", method, 1, work, shown * event * 3.25)


def _calls(method: Mapping[str, Any]) -> tuple[float, float]:
    """Counts a method's evaluations of the denoiser and products with its Jacobian, by step."""
    steps, spec = 4, {"name": "downsample", "factor": 2}
    operator = operators.simulate(spec, (1, 4, 4), 1, rng(0, Stage.CORRUPTION))
    denoiser = _Counted(VPSchedule())
    problem = Problem(operator, torch.zeros(1, *operator.observation_shape), 0.1)
    restore(METHODS.parse(method), denoiser, problem, steps, seed=0)
    return denoiser.evaluations / steps, denoiser.products / steps
