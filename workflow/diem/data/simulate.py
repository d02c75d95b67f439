"""Simulation of observations ``y = A x + n`` from clean data."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diem import operators
from diem.data.observations import SPLITS, Observed, save_observations
from diem.errors import DiemError
from diem.files.hdf5 import Reader, Rows, row_parts
from diem.operators.base import Operator
from diem.operators.verify import PROBED, verify_operator
from diem.seeds import Stage, rng

__all__ = ["corrupt", "observe"]


def observe(
    operator: Operator, x: Tensor, sigma_y: float | Tensor, stream: np.random.Generator
) -> Tensor:
    """Returns observations ``(B, *observation)`` of ``x`` ``(B, *event)``, with their noise.

    Where nothing is observed there is no noise either: the padding stays zero.
    """
    y = operator.forward(x)
    noise = torch.from_numpy(stream.standard_normal(y.shape, dtype=np.float32))
    return y + sigma_y * noise * operator.observed()


def corrupt(
    clean: str | Path, output: str | Path, entry: Mapping[str, Any], seed: int, experiment: str
) -> None:
    """Observes every clean sample once, through its own operator, and forgets it.

    Arguments:
        clean: The file of clean data.
        output: The file of observations to write.
        entry: The config's entry of ``observations``: ``operator`` and ``sigma_y``.
        seed: The config's seed.
        experiment: The experiment's name, for the file's attributes.

    Raises:
        DiemError: If the operator or the noise does not fit the data.
    """
    splits, y_parts, groups = {}, {}, {}
    event_shape = None  # the training split's
    for number, split in enumerate(SPLITS):
        x = Rows([clean], f"{split}/x", event_shape, cache_mb=0)
        event_shape = x.shape
        stream = rng(seed, Stage.CORRUPTION, 0, number)
        operator = operators.simulate(entry["operator"], event_shape, len(x), stream)
        if number == 0:
            verify_operator(operator[:PROBED], entry["operator"]["name"])
        sigma_y = torch.tensor(entry["sigma_y"], dtype=torch.float32)
        shape = operator.observation_shape
        if sigma_y.ndim > 0:
            if sigma_y.numel() != math.prod(shape):
                raise DiemError(
                    f"experiments.{experiment}.observations: sigma_y holds {sigma_y.numel()}"
                    f" values, and an observation {math.prod(shape)}."
                )
            sigma_y = sigma_y.reshape(shape)
        y_parts[split] = _observed(operator, x, sigma_y, stream)
        none = torch.empty(0, *shape)
        splits[split] = Observed(operator, none, sigma_y, np.arange(len(x)))
        with Reader(clean) as file:
            if f"{split}/groups" in file:
                groups[split] = file.read(f"{split}/groups", shape=())
    name = entry["operator"]["name"]
    attributes = {"experiment": experiment, "seed": seed}
    save_observations(output, splits, name, attributes, y_parts, groups)


def _observed(
    operator: Operator, x: Rows, sigma_y: Tensor, stream: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields the observations of all rows in order, a part at a time."""
    start = 0
    with x:
        for part in row_parts(x):
            rows = slice(start, start + len(part))
            yield observe(operator[rows], torch.as_tensor(part), sigma_y, stream).numpy()
            start = rows.stop
