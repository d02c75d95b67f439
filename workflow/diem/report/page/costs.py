"""What the stages of a run took, as the progress bars in the logs of its jobs tell."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diem.replicates import all_entries
from diem.report.bars import last_bar
from diem.report.page.tables import Cell, Table
from diem.report.tables.writing import NONE

__all__ = ["cost_table", "read_seconds"]

STAGES = {
    "experiments": {
        "Gaussian prior": r"{entry}/(?P<run>[^/]+)_gaussian_prior",
        "E-steps": r"{entry}/(?P<run>[^/]+)/lap_\d+(_final)?_e_step(_\d+-of-\d+)?",
        "M-steps": r"{entry}/(?P<run>[^/]+)/lap_\d+(_final)?_m_step",
        "ceiling": r"{entry}/(?P<run>[^/]+)/ceiling",
        "evaluation of laps": r"{entry}/(?P<run>[^/]+)/lap_\d+(_final)?_evaluate",
        "evaluation of the floor": r"{entry}/(?P<run>[^/]+)_floor_evaluate",
        "evaluation of the ceiling": r"{entry}/(?P<run>[^/]+)/ceiling_[^/]+_evaluate",
        "reconstructions": r"{entry}/(?P<run>[^/]+)/reconstruct_[^/]+",
    },
    "heuristics": {
        "cases": r"heuristics/{entry}/block_\d+",
        "coil": r"heuristics/{entry}/coil",
    },
    "restoration": {
        "prior": r"restoration/{entry}/prior",
        "restored images": r"restoration/{entry}/(?!prior$|clean_data$)(?P<run>[^/]+)",
    },
    "posterior": {"posterior samples": r"posterior/{entry}"},
}
"""The stages that compute, by section, and the logs of their jobs."""


def read_seconds(log: str) -> float | None:
    """Returns the seconds that a job's work took; nothing if its log has no progress bar.

    The time of a bar is in whole seconds. Its rate tells it better, unless the work went on from
    pieces that an earlier attempt had kept; the bar's time is then that of the last attempt.

    Arguments:
        log: What the log says.
    """
    bar = last_bar(log)
    if bar is None:
        return None
    clock = 0
    for part in bar["clock"].split(":"):
        clock = 60 * clock + int(part)
    if bar["rate"] and float(bar["rate"]):
        rate = float(bar["rate"])
        seconds = int(bar["count"]) * rate if bar["slow"] else int(bar["count"]) / rate
        if abs(seconds - clock) <= 1:
            return seconds
    return float(clock)


def cost_table(logs: str | Path, config: Mapping[str, Any]) -> Table | None:
    """Returns the time of every stage, and their sum; nothing if no log tells any.

    Arguments:
        logs: The folder of the logs.
        config: The resolved configuration, of whose entries the stages are.
    """
    folder = Path(logs)
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.log"))
    }
    body, jobs, total = [], 0, 0.0
    for section, stages in STAGES.items():
        for entry in all_entries(config, section):
            for stage, pattern in stages.items():
                named = pattern.replace("{entry}", re.escape(entry))
                for run, spent in _spent(files, named).items():
                    body.append(
                        [entry, stage, run or NONE, f"{len(spent):,}", f"{sum(spent):,.1f}"]
                    )
                    jobs, total = jobs + len(spent), total + sum(spent)
    if not body:
        return None
    body.append(["all", NONE, NONE, f"{jobs:,}", f"{total:,.1f}"])
    notes = [
        "The time of the jobs' work, from the progress bars of their logs, one job after another:"
        " not of their start, and of a job that was interrupted only the last attempt."
        " Stages without a progress bar are not here."
    ]
    header = ["Entry", "Stage", "Run or observations", "Jobs", "Seconds"]
    return Table(header, [[Cell(text) for text in row] for row in body], notes)


def _spent(files: Mapping[str, Path], pattern: str) -> dict[str, list[float]]:
    """Returns the seconds of the jobs of a stage by run."""
    found: dict[str, list[float]] = {}
    for name, path in files.items():
        if match := re.fullmatch(pattern, name):
            seconds = read_seconds(path.read_text(encoding="utf-8", errors="replace"))
            if seconds is not None:
                found.setdefault(match.groupdict().get("run", ""), []).append(seconds)
    return found
