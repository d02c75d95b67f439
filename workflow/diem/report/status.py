"""How far a workflow is: read from its results and logs, whoever is writing them."""

import re
from collections.abc import Iterator
from pathlib import Path

from diem.evaluation.metrics import by_quality
from diem.evaluation.rows import read_rows
from diem.jobs.results import held, results_folder
from diem.report.bars import bar_of, told_bar
from diem.report.curves import laps_of, read_curve
from diem.report.tables.labels import metric_label

__all__ = ["status"]


def status(results: str | Path) -> Iterator[str]:
    """Yields a sentence on each run of a folder of results, and on each job that is in work.

    Arguments:
        results: The folder.

    Raises:
        DiemError: If it is no folder of results.
    """
    folder = results_folder(results)
    running = held(folder)
    yield f"{results}: {'a workflow is writing' if running else 'no workflow is writing here'}."
    for run in sorted(folder.glob("*/runs/*")):
        yield f"{run.parent.parent.name}/{run.name}: {_of_run(run)}."
    for log, bar in sorted(_unfinished(folder / "logs")):
        job = log.relative_to(folder / "logs").with_suffix("")
        yield f"{job}: {told_bar(bar, running)}{'' if running else ', not finished'}"


def _of_run(run: Path) -> str:
    """Returns how far a run is, and how good: the newest lap of which there is anything."""
    laps = laps_of(run)
    trained = [lap for lap, path in laps.items() if (path / "prior.safetensors").is_file()]
    if not trained:
        return "no lap is finished"
    words = [f"{trained[-1]} lap{'s' if trained[-1] > 1 else ''}"]
    losses = laps[trained[-1]] / "losses.csv"
    if losses.is_file():
        last = read_curve(losses).iloc[-1]
        words.append(f"loss {last['loss']:.3g} ({last['validation_loss']:.3g} in validation)")
    evaluated = [lap for lap in laps if (laps[lap] / "metrics.csv").is_file()]
    if evaluated:
        words.append(_number(laps[evaluated[-1]] / "metrics.csv", evaluated[-1]))
    return ", ".join(words)


def _number(path: Path, lap: int) -> str:
    """Returns the most telling number of an evaluation."""
    rows = read_rows([path])
    rows = rows[rows["subject"] != "e_step"]
    telling = [name for name in ("prediction", *by_quality()) if name in set(rows["metric"])]
    name = telling[0] if telling else rows["metric"].iloc[0]
    row = rows[rows["metric"] == name].iloc[0]
    return f"{metric_label(name, row['extractor'])} {row['value']:.3g} after lap {lap}"


def _unfinished(logs: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yields the logs whose progress bar has not come to its end, and its last state."""
    for log in logs.rglob("*.log"):
        if bar := bar_of(log):
            yield log, bar
