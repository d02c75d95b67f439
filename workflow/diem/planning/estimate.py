"""What a configuration will cost: FLOPs, hours and disk, before any of it is spent.

The work of every stage, see :mod:`diem.planning.stages`, is multiplied by what a calibration
measures on the user's own device, see :mod:`diem.planning.calibration`.

A front end needs two lines, with the configuration as :func:`diem.config.resolve.resolve` returns
it::

    rows = estimate(config)
    print(text(readable(rows)))
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tabulate import tabulate

from diem.errors import DiemError, nearest
from diem.jobs.devices import select_device
from diem.planning import calibration
from diem.planning.stages import stages
from diem.report.tables.writing import NONE, Readable, rounded

__all__ = ["PEAKS", "SUSTAINED", "estimate", "readable", "text"]

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
    planned = list(stages(config))
    if not planned:
        raise DiemError("The configuration has nothing to plan.")
    fixed = calibration.job_seconds()
    kinds = list(dict.fromkeys(work for stage in planned for work in stage.work))
    costs = calibration.calibrate(kinds, seconds, device, clock)
    spent = time.monotonic() - began

    rows = []
    for stage in planned:
        flops = sum(count * costs[work].flops for work, count in stage.work.items())
        busy = sum(count * costs[work].seconds for work, count in stage.work.items())
        elsewhere = (flops / (rate * 1e12) + stage.jobs * fixed) / 3600
        rows.append(
            {
                "experiment": stage.entry,
                "stage": stage.name,
                "run": stage.run,
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
        if not 0 < gpu < math.inf:
            raise DiemError(f"estimate_gpu: {gpu:g} is no rate, a positive number of TFLOP/s.")
        return float(gpu)
    if gpu not in PEAKS:
        raise DiemError(
            f"estimate_gpu: {gpu!r} is unknown{nearest(gpu, PEAKS)}; a number is taken as its"
            " sustained TFLOP/s."
        )
    return SUSTAINED * PEAKS[gpu]
