"""Losses and metrics as event files, which TensorBoard shows beside those of other trainings."""

from pathlib import Path
from typing import Any

import pandas as pd

from diem.errors import DiemError
from diem.evaluation.rows import read_rows
from diem.jobs.results import results_folder
from diem.report.curves import laps_of, read_curve

__all__ = ["write_events"]


def write_events(results: str | Path, output: str | Path) -> list[str]:
    """Writes the losses and metrics of every run as scalars, as far as a workflow has come.

    Losses are by optimizer step over all laps, metrics by lap, where lap 0 is the Gaussian prior.
    Event files that are there already are replaced, so that the same command brings them up to
    date.

    Arguments:
        results: The folder of results, which is only read.
        output: The folder to write to, with a folder for each run.

    Returns:
        The runs, as ``<experiment>/<run>``.

    Raises:
        DiemError: If that is no folder of results, or TensorBoard is not installed.
    """
    folder, runs = results_folder(results), []
    for run in sorted(folder.glob("*/runs/*")):
        experiment = run.parents[1]
        runs.append(f"{experiment.name}/{run.name}")
        with _writer(Path(output, runs[-1])) as writer:
            laps = laps_of(run)
            _write_losses(writer, laps)
            _write_metrics(writer, experiment, laps)
    return runs


def _writer(folder: Path) -> Any:
    """Opens the event file of a run, in the place of those of an earlier call."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise DiemError(
            "Event files are written by the package tensorboard, which is not installed: pip"
            " install tensorboard."
        ) from None
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    return SummaryWriter(str(folder))


def _write_losses(writer: Any, laps: dict[int, Path]) -> None:
    done = 0
    for folder in laps.values():
        path = folder / "losses.csv"
        if not path.is_file():  # a lap in work
            continue
        time = path.stat().st_mtime
        for row in read_curve(path).to_dict("records"):
            step = done + int(row["step"])
            writer.add_scalar("loss/training", row["loss"], step, time)
            writer.add_scalar("loss/validation", row["validation_loss"], step, time)
            writer.add_scalar("loss/learning_rate", row["learning_rate"], step, time)
        done = step


def _write_metrics(writer: Any, experiment: Path, laps: dict[int, Path]) -> None:
    evaluated = [path for path in (lap / "metrics.csv" for lap in laps.values()) if path.is_file()]
    if not evaluated:
        return
    rows = read_rows(evaluated)
    floor = experiment / "observations" / rows["observations"].iloc[0] / "floor" / "metrics.csv"
    if floor.is_file():
        rows = pd.concat([read_rows([floor]), rows])
    for row in rows.to_dict("records"):
        writer.add_scalar(f"{row['subject']}/{row['metric']}", row["value"], row["lap"])
