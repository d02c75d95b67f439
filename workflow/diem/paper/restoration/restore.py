"""Test images are restored by a method, at every task and number of steps, and measured."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from azula.denoise import Denoiser
from torch import Tensor

from diem import __version__, operators
from diem.data.sets.base import SPLITS
from diem.data.simulate import observe
from diem.errors import DiemError
from diem.evaluation.metrics import METRICS, Fidelity
from diem.evaluation.metrics.base import mean_of
from diem.evaluation.rows import CARD
from diem.files.hdf5 import Reader
from diem.jobs.job import Job
from diem.jobs.resume import cached_tensor
from diem.paper.methods import METHODS, Method, Problem
from diem.paper.restoration.prior import respaced
from diem.seeds import Stage, global_stream, rng, stream_seed, subset

__all__ = ["COLUMNS", "SHOWN", "compare", "restore"]

COLUMNS = (*CARD, "settings")
"""The columns of a row: the card, whose standard errors are over the images, and the settings
of task and method as JSON. ``observations`` is the task, ``run`` the method."""

SHOWN = 16
"""How many restored images are kept for figures, at the largest number of steps."""


def restore(method: Method, denoiser: Denoiser, problem: Problem, steps: int, seed: int) -> Tensor:
    """Draws one posterior sample an observation.

    Arguments:
        method: The posterior sampler.
        denoiser: The prior's denoiser of images in [-1, 1], on a variance-preserving schedule.
        problem: The observations, on the denoiser's device.
        steps: The number of steps.
        seed: The seed of the noise. azula draws from the global random state, which is left as
            it was.

    Returns:
        The samples, of shape ``(B, *event)``. What a method makes of an image that it lost need not
        be finite.
    """
    sampler = method.sampler(denoiser, problem, steps=steps, silent=True)
    device = problem.y.device
    with global_stream(seed, device):
        shape = len(problem.y), *problem.operator.event_shape
        start = sampler.init(shape, device=device, dtype=problem.y.dtype)
        return sampler(start)


def compare(
    denoiser: Denoiser,
    clean: str | Path,
    entry: Mapping[str, Any],
    name: str,
    shared: Mapping[str, Any],
    job: Job,
    files: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    r"""Restores test images with one method, at every task and number of steps, and measures them.

    Every method sees the same observations, and starts from the same noise.

    Arguments:
        denoiser: The prior's denoiser of images in [-1, 1].
        clean: The file of clean data.
        entry: The config's entry of ``restoration``, with the data's name as ``data``.
        name: The name of the method's entry.
        shared: What all rows say beside: ``experiment`` (the comparison's name),
            ``optimizer_steps``, and ``prior`` in words.
        job: The job. Its progress counts the images restored.
        files: The inputs of metrics, by name; a metric that lacks one has no rows.

    Returns:
        The rows, and what figures are made of: of the first images of each task ``task/x``
        (restored, at the largest number of steps), ``task/y`` (the observation, enlarged to the
        image's size, or :math:`A^\top y` where it is no such image), ``task/observed`` and
        ``task/truth``, in [-2, 2].

    Raises:
        DiemError: If there are too few test images, or an operator does not fit them.
    """
    truth = _test_images(clean, entry["images"], job.seed)
    settings = METHODS.entry(entry["methods"][name], f"methods.{name}")
    method, denoiser = METHODS.parse(settings), denoiser.to(job.device)
    prior = {"name": shared["prior"], **{key: entry[key] for key in ("data", "respaced", "clip")}}
    tools = _tools(entry["metrics"], files or {}, job.device)
    rows: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for task, problem in entry["tasks"].items():
        observed = _observe(problem, truth / 2, entry["block"], job.seed)
        columns = {
            **shared,
            "run": name,
            "observations": task,
            "stage": "sampler",
            "lap": 0,
            "subject": "posterior",
            "split": "test",
            "samples": len(truth),
            "reference": "clean test",
            "reference_samples": len(truth),
            "sampler": "ddim (eta 1)",
            "seed": job.seed,
            "diem": __version__,
            "torch": torch.__version__,
            "settings": json.dumps({"prior": prior, "method": settings, "task": problem}),
        }
        for steps in entry["steps"]:
            walked = respaced(denoiser, steps) if entry["respaced"] else denoiser
            x = _restored(method, walked, observed, steps, task, job)
            columns |= {"sampler_steps": steps, "denoiser_evaluations": steps}
            rows += _measured(x, truth, tools, columns)
            if steps == max(entry["steps"]):
                arrays |= _shown(task, x, truth, observed[0])
    return rows, arrays


def _tools(
    wanted: Iterable[str], files: Mapping[str, Any], device: torch.device
) -> list[tuple[Fidelity, Any]]:
    """Returns the metrics whose files there are, each with what it computes with."""
    tools = []
    for metric in map(METRICS.parse, wanted):
        if not isinstance(metric, Fidelity):
            raise DiemError(f"restoration: the metric {metric.name!r} compares no images.")
        if files.keys() >= {*metric.inputs}:
            tools.append((metric, metric.load(files, device)))
    return tools


def _test_images(clean: str | Path, count: int, seed: int) -> Tensor:
    with Reader(clean) as file:
        rows = subset(file.shape("test/x")[0], count, seed, SPLITS.index("test"))
        images = torch.from_numpy(file.read("test/x", rows))
    if len(images) < count:
        raise DiemError(
            f"{clean}: there are {len(images)} test images, where {count} are asked for."
        )
    return images


def _observe(task: Mapping[str, Any], x: Tensor, block: int, seed: int) -> list[Problem]:
    """Observes images, block by block; the streams are the same for every task."""
    problems, shared = [], None
    if task["shared"]:
        stream = rng(seed, Stage.RESTORATION, 2)
        shared = operators.simulate(task["operator"], x.shape[1:], 1, stream)
    for number, images in enumerate(x.split(block)):
        stream = rng(seed, Stage.RESTORATION, 0, number)
        operator = shared or operators.simulate(
            task["operator"], images.shape[1:], len(images), stream
        )
        y = observe(operator, images, task["sigma_y"], stream)
        problems.append(Problem(operator, y, task["sigma_y"]))
    return problems


def _restored(
    method: Method, denoiser: Denoiser, observed: list[Problem], steps: int, task: str, job: Job
) -> Tensor:
    """Restores the images of a task, a block a piece of the job, and returns them in [-2, 2]."""
    blocks = []
    for number, (operator, y, sigma_y) in enumerate(observed):
        seed = stream_seed(job.seed, Stage.RESTORATION, 1, number)
        problem = Problem(operator.to(job.device), y.to(job.device), sigma_y)
        sample = partial(restore, method, denoiser, problem, steps, seed)
        blocks.append(cached_tensor(job.keep, f"{task}/{steps}/{number}", sample))
        job.progress.update(len(y))
    # Pixels are clipped to their range, as they would be in an image file.
    return (2 * torch.cat(blocks)).clamp(-2, 2)


def _measured(
    x: Tensor, truth: Tensor, tools: list[tuple[Fidelity, Any]], columns: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns the rows of restored images."""
    rows = []
    for metric, tool in tools:
        found = mean_of(metric.of_each(x, truth, tool), "posterior")
        number = {"metric": metric.name, "value": found.value, "standard_error": found.error}
        row = {**columns, **metric.card(tool), **number}
        rows.append({column: row.get(column, "") for column in COLUMNS})
    return rows


def _shown(task: str, x: Tensor, truth: Tensor, observed: Problem) -> dict[str, np.ndarray]:
    """Returns the arrays that figures are made of."""
    count, size = min(SHOWN, len(observed.y)), truth.shape[2:]
    operator, y = observed.operator[:count], 2 * observed.y[:count]
    seen = operator.observed().expand_as(y).float()
    if y.ndim != 4 or y.shape[1] != truth.shape[1]:
        y, seen = operator.adjoint(y), torch.ones(count, *truth.shape[1:])
    if y.shape[2:] != size:
        y, seen = F.interpolate(y, size), F.interpolate(seen, size)
    arrays = {"x": x[:count], "y": y, "observed": seen.bool(), "truth": truth[:count]}
    return {f"{task}/{name}": value.numpy() for name, value in arrays.items()}
