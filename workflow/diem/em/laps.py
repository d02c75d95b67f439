"""Which laps are evaluated, and how long each trains."""

from collections.abc import Mapping
from typing import Any

__all__ = ["ceiling_training", "evaluated_laps", "training_of_lap"]


def evaluated_laps(experiment: Mapping[str, Any], run: str) -> list[int]:
    """Returns the laps of a run that are evaluated: those asked for, and the last one."""
    laps = experiment["runs"][run]["laps"]
    return sorted({lap for lap in experiment["evaluation"]["laps"] if lap < laps} | {laps})


def training_of_lap(entry: Mapping[str, Any], lap: int, laps: int) -> dict[str, Any]:
    """Returns an ``m_step`` entry with the length, the rates and the bound of one lap.

    They take the place of ``first``, ``final``, ``final_decay`` and ``drop_from``.
    """
    entry = dict(entry)
    first, final, decay = (entry.pop(key) for key in ("first", "final", "final_decay"))
    times = final if lap == laps else first if lap == 1 else 1
    entry["steps"] *= times
    entry["epochs"] = entry["epochs"] and times * entry["epochs"]
    if lap == laps and decay:
        entry["learning_rate_final"] = 0.0
    if lap < entry.pop("drop_from"):
        entry["drop_outside"] = None
    return entry


def ceiling_training(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ``m_step`` entry of the ceiling: the steps, or epochs, of all laps together."""
    count = experiment["laps"]
    laps = [training_of_lap(experiment["m_step"], lap, count) for lap in range(1, count + 1)]
    epochs = [lap["epochs"] for lap in laps]
    if all(epochs):
        return {**laps[-1], "epochs": sum(epochs)}
    return {**laps[-1], "steps": sum(lap["steps"] for lap in laps)}
