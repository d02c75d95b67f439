"""The configuration of a fit: one to begin with, and what of it is set otherwise."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from diem.components import merge, short
from diem.config.paths import Paths
from diem.config.resolve import resolve
from diem.data.observations import Observations
from diem.errors import DiemError, nearest
from diem.evaluation.metrics.prediction import Prediction
from diem.operators import OPERATORS
from diem.planning.beginning import beginning

__all__ = ["EXPERIMENT", "OBSERVATIONS", "RUN", "configured", "resolved"]

EXPERIMENT, RUN, OBSERVATIONS = "fit", "base", "all"
"""The names of what is learned, in the configuration and in the folder of results."""

OF_RUNS = ("cache_mb", "checkpoint_seconds", "on_divergence", "threads")
"""What can be set of the keys beside the experiments."""

OF_EXPERIMENTS = (
    *("recipe", "data", "network", "schedule", "gaussian", "laps", "e_step", "m_step"),
    "evaluation",
)
"""What can be set of an experiment's keys: the others are arguments, or about figures."""

SOURCE = "settings"


def configured(
    file: Path,
    operator: str,
    settings: Mapping[str, Any] | None,
    laps: int | None,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Returns the configuration of a fit, as it would be written.

    Arguments:
        file: The file of observations.
        operator: The name of its operator.
        settings: What is set otherwise than in :func:`diem.planning.beginning.beginning`.
        laps: The number of laps, if it is told.
        seed: The seed.
        device: The device's name.

    Raises:
        DiemError: If a key is none that can be set.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise DiemError(f"settings is {short(settings)}, where a mapping is needed.")
    settings = {key: _plain(value) for key, value in (settings or {}).items()}
    known = (*OF_RUNS, *OF_EXPERIMENTS)
    for key in map(str, settings):
        if key not in known:
            raise DiemError(f"settings.{short(key)[1:-1]} is unknown{nearest(key, known)}.")
    if laps is not None and "laps" in settings:
        raise DiemError("laps is given twice, as an argument and in settings.")
    own = operator if operator not in OPERATORS.names else None
    with Observations(file, own) as opened:
        made = beginning(opened, EXPERIMENT, "config.yaml", operator=own)
    experiment = yaml.safe_load(made.text)["experiments"][EXPERIMENT]
    changes = {key: settings.pop(key) for key in OF_EXPERIMENTS if key in settings}
    changes |= {} if laps is None else {"laps": laps}
    changed = merge(experiment, changes)
    if "metrics" in _mapping(changes.get("evaluation")):
        del changed["figures"]  # which are of those that are chosen otherwise
    network, data = _mapping(changes.get("network")), _mapping(changes.get("data"))
    if network.keys() & {"name", "class"}:
        changed["network"] = network  # another network has other options
    if fixed := sorted(data.keys() & {"class", "name", "path"}):
        raise DiemError(f"settings.data.{fixed[0]} cannot be set: the data are y.")
    return {"seed": seed, "device": device, **settings, "experiments": {EXPERIMENT: changed}}


def _plain(value: Any) -> Any:
    """Returns a value with lists in the place of arrays and tuples, as a configuration has them."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _mapping(value: Any) -> Mapping[str, Any]:
    """Returns a section, or nothing of what is none, which the configuration's models tell of."""
    return value if isinstance(value, Mapping) else {}


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration of :func:`configured` with every default, checked.

    Raises:
        DiemError: If something of it is wrong; the sentence names the key of ``settings``.
    """
    with _told_by_settings():
        complete = resolve(config, SOURCE)
        experiment = complete["experiments"][EXPERIMENT]
        if not Paths(complete).selects(EXPERIMENT):
            raise DiemError(
                f"settings.evaluation.metrics lacks {Prediction.name!r}, by which laps are chosen."
            )
        for key in ("processes", "nodes"):
            if experiment["runs"][RUN]["m_step"][key] > 1:
                raise DiemError(
                    f"settings.m_step.{key} is more than 1, and this is one process: learn with the"
                    " workflow on several GPUs."
                )
    return complete


@contextlib.contextmanager
def _told_by_settings() -> Iterator[None]:
    """Has errors name a key as it is given, which is not where it stands in a configuration."""
    try:
        yield
    except DiemError as error:
        text = str(error).replace(f".runs.{RUN}.", ".")
        text = text.replace(f"{SOURCE}: experiments.{EXPERIMENT}.", f"{SOURCE}.")
        raise DiemError(text.removeprefix(f"{SOURCE}: ")) from None
