"""From the configuration as it is written to the one that runs: checked, with every default.

An experiment holds settings that all of its runs share; a run names its observations and overrides
what differs. The models are in :mod:`diem.config.models`, checks across keys in
:mod:`diem.config.checks`.
"""

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diem.components import merge, short, split, tell
from diem.config import checks
from diem.config.fits import check_new_observations
from diem.config.models import Config
from diem.config.recipes import RECIPES
from diem.data.sets import DATASETS
from diem.diffusion.outside import SHAPING
from diem.diffusion.samplers import changed_sampler
from diem.errors import DiemError, placed
from diem.evaluation.metrics import METRICS

__all__ = ["posterior_settings", "resolve"]

RANK = 64
"""The paper's rank of the Gaussian, which is the default unless the data are smaller."""

SHOWN = 16
"""The paper's number of test observations, which is the default unless there are fewer."""

PARTS = ("experiments", "heuristics", "restoration", "posterior")
"""The parts of a configuration, of which at least one is not empty."""


def resolve(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Checks a configuration and returns it with every default and every run filled in.

    Arguments:
        config: The configuration as read.
        source: The name of the configuration's file, for errors.

    Returns:
        The configuration. Each ``experiments.*.runs.*`` holds the settings of its own:
        ``observations``, ``label``, ``laps``, ``e_step`` and ``m_step``.

    Raises:
        DiemError: With one sentence that names the file and the key.
    """
    written = _named(copy.deepcopy(dict(config)))
    with placed(f"{source}: "):
        _check_data(written.get("experiments"))
    _validated(written, source)
    checks.check_results(written.get("results", ""), source)
    if "results" in written:
        written["results"] = str(Path(written["results"]).expanduser())
    if not any(written.get(part) for part in PARTS):
        raise DiemError(f"{source}: the configuration has none of {', '.join(PARTS)}.")
    for name, experiment in written.get("experiments", {}).items():
        checks.check_references(experiment, f"{source}: experiments.{name}")
        _fill_runs(experiment)

    resolved = _validated(written, source).model_dump()
    if resolved["seeds"]:
        checks.check_seeds(resolved["seeds"], written.get("seed"), source)
        resolved["seed"] = resolved["seeds"][0]
    checks.check_names(resolved, source)
    for name, experiment in resolved["experiments"].items():
        where = f"{source}: experiments.{name}"
        if experiment["evaluation"]["metrics"] is None:
            experiment["evaluation"]["metrics"] = _default_metrics(experiment["data"])
        if experiment["evaluation"]["test_observations"] is None:
            experiment["evaluation"]["test_observations"] = _default_shown(experiment["data"])
        checks.check_experiment(experiment, where)
        _settle_rank(experiment["gaussian"], experiment["data"], where)
    for name, entry in resolved["restoration"].items():
        where = f"{source}: restoration.{name}"
        checks.check_restoration(entry, where)
        if "train" in entry:
            _settle_rank(entry["train"]["gaussian"], entry["data"], f"{where}.train")
    for name, entry in resolved["posterior"].items():
        where = f"{source}: posterior.{name}"
        checks.check_input(entry["observations"], f"{where}.observations")
        if isinstance(entry["prior"], Mapping):
            checks.check_prior(entry["prior"], resolved["experiments"], f"{where}.prior")
        else:
            checks.check_input(entry["prior"], f"{where}.prior")
        check_new_observations(entry, resolved["experiments"], where)
    checks.check_replicates(resolved, source)
    return resolved


def _validated(config: Mapping[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(config)
    except ValidationError as error:
        raise DiemError(f"{source}: {tell(error, Config, '', config)}.") from None


def _check_data(experiments: Any) -> None:
    """Refuses experiments without a data set, by which it is judged what else they need."""
    for name, entry in experiments.items() if isinstance(experiments, Mapping) else ():
        where = f"experiments.{short(name)[1:-1]}"
        if not isinstance(entry, Mapping):
            continue
        if "data" not in entry:
            raise DiemError(f"{where} lacks the key 'data'.")
        data, where = entry["data"], f"{where}.data"
        DATASETS.find(split(data, where)[0], where if isinstance(data, str) else f"{where}.name")


def _fill_runs(experiment: dict[str, Any]) -> None:
    """Gives each run what it shares with the others, and the experiment what its recipe says."""
    for section, settings in RECIPES[experiment.get("recipe", "paper")].items():
        experiment[section] = _overridden(settings, experiment.get(section, {}))
    shared = {key: experiment[key] for key in ("laps", "e_step", "m_step") if key in experiment}
    for name, run in experiment["runs"].items():
        experiment["runs"][name] = _overridden({"label": name} | shared, run)


def _overridden(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with an experiment's or a run's own.

    It may change the sampler, and what tells the length of a training.
    """
    merged = merge(settings, own)
    for place, before, after in ((merged, settings, own), *_e_steps(merged, settings, own)):
        if isinstance(after.get("sampler"), Mapping) and "sampler" in before:
            place["sampler"] = changed_sampler(before["sampler"], after["sampler"])
    length = own.get("m_step")
    if isinstance(length, Mapping) and "steps" in length and "epochs" not in length:
        merged["m_step"]["epochs"] = None  # of what is overridden, in whose place steps are told
    return merged


def _e_steps(*entries: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    parts = tuple(entry.get("e_step") or {} for entry in entries)
    return [parts] if any(parts) else []


def _default_metrics(data: Mapping[str, Any]) -> list[str]:
    """Returns the metrics of an experiment that names none: of own observations all it can have."""
    if "clean" in DATASETS.parse(data).facts:
        return ["sliced_wasserstein"]
    metrics = METRICS.all()
    return sorted((n for n in metrics if not metrics[n].needs), key=lambda n: metrics[n].order)


def _default_shown(data: Mapping[str, Any]) -> int:
    """Returns how many test observations are sampled, of an experiment that does not tell."""
    try:
        return max(1, min(SHOWN, DATASETS.parse(data).counts()["test"]))
    except DiemError:  # only files can tell that are not there, or are told with their key later
        return SHOWN


def _settle_rank(entry: dict[str, Any], data: Mapping[str, Any], where: str) -> None:
    """Fills the rank of a ``gaussian`` entry in, or checks that the data's size allows it."""
    size = math.prod(DATASETS.parse(data).event_shape())
    if entry["rank"] is None:
        entry["rank"] = min(RANK, size - 1)
    elif entry["rank"] >= size:
        raise DiemError(
            f"{where}.gaussian.rank is {entry['rank']}, and must be less than the data's size"
            f" {size}."
        )


def _named(value: Any) -> Any:
    """Returns a value whose keys are text: YAML reads a name such as 50 as a number."""
    if isinstance(value, Mapping):
        return {str(key): _named(child) for key, child in value.items()}
    return value


def posterior_settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of an entry of ``posterior`` that take the place of the default's."""
    return {key: entry[key] for key in SHAPING if key in entry}
