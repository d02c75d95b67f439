"""Checks across keys: what no single key can tell. Each raises a DiemError of one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from diem.components import short, split
from diem.config.fits import check_images, check_sizes
from diem.config.paths import PAGES
from diem.data.sets import DATASETS
from diem.data.sets.base import DataSet
from diem.em.augmentations import AUGMENTATIONS
from diem.errors import DiemError, nearest, placed
from diem.evaluation.metrics import METRICS
from diem.operators import OPERATORS
from diem.replicates import SECTIONS, replicates
from diem.report.figures.base import Facts, check_figures

__all__ = [
    "check_experiment",
    "check_input",
    "check_names",
    "check_prior",
    "check_references",
    "check_replicates",
    "check_restoration",
    "check_results",
    "check_seeds",
]

FOLDERS = {
    *("downloads", "figures", "heuristics", "logs", "posterior", "restoration", "tables"),
    *("tensorboard", PAGES),
}
"""The folders beside those of the experiments, in the folder of the results."""

TABLES = (
    *("", "_rows", "_published", "_chosen_lap", "_calibration"),
    *("_reconstructions", "_reconstructions_rows"),
)
"""How the names of an experiment's tables end."""

NEEDS = {
    "clean": "clean data",
    "labels": "labelled images to train its extractor on",
    "images": "images",
    "colour": "colour images",
    "curve": "data on a known curve",
}
"""What a metric or an augmentation can need of the data, in words."""


def check_results(results: Any, source: str) -> None:
    """Refuses a folder of results whose name Snakemake cannot take."""
    if any(character in "{}" or not character.isprintable() for character in results):
        raise DiemError(
            f"{source}: results is {short(results)}, and Snakemake takes no path with braces or"
            " control characters."
        )


def check_input(path: str, where: str) -> None:
    """Refuses a file of the user's that Snakemake would take for a pattern."""
    if "{" in path or "}" in path:
        raise DiemError(f"{where} is {short(path)}, and Snakemake takes no path with braces.")


def check_names(config: Mapping[str, Any], source: str) -> None:
    """Refuses names by which two entries would write the same file."""
    for name in config["experiments"]:
        if name in FOLDERS:
            raise DiemError(
                f"{source}: experiments.{name} has the name of a folder of the results that is no"
                f" experiment's ({', '.join(sorted(FOLDERS))})."
            )
    entries: list[tuple[str, str, tuple[str, ...]]] = [
        (f"experiments.{name}", name, TABLES) for name in config["experiments"]
    ]
    for part in ("heuristics", "restoration"):
        entries += [(f"{part}.{name}", f"{part}_{name}", ("", "_rows")) for name in config[part]]
    written = dict.fromkeys(("estimate", "hyperparameters", "paper_vs_ours"), "the workflow")
    for where, name, endings in entries:
        for table in (f"{name}{ending}" for ending in endings):
            if table in written:
                raise DiemError(
                    f"{source}: {where} has a name by which it and {written[table]} would write"
                    f" the same table, {table!r}."
                )
            written[table] = where


def check_seeds(seeds: Sequence[int], seed: int | None, source: str) -> None:
    """Refuses seeds that come twice, and another ``seed`` beside them."""
    if len(set(seeds)) < len(seeds):
        raise DiemError(f"{source}: seeds is {short(seeds)}, and holds a seed twice.")
    if seed not in (None, seeds[0]):
        raise DiemError(
            f"{source}: seed is {seed} and seeds is {short(seeds)}: give one of the two keys."
        )


def check_replicates(config: Mapping[str, Any], source: str) -> None:
    """Refuses an entry in whose folder another one would lie at another seed."""
    for section in SECTIONS:
        for name, of, seed in replicates(config, section):
            if name in config[section]:
                raise DiemError(
                    f"{source}: {section}.{name} has the name by which {section}.{of} runs at the"
                    f" seed {seed}."
                )


def check_references(experiment: Mapping[str, Any], where: str) -> None:
    """Refuses sets of observations that are not there."""
    known = experiment["observations"]
    for key, run in experiment["runs"].items():
        name = run["observations"]
        if name not in known:
            raise DiemError(
                f"{where}.runs.{key}.observations is {short(name)}, which is unknown"
                f"{nearest(name, known)}."
            )
    for name in experiment.get("evaluation", {}).get("reconstruct", []):
        if name not in known:
            raise DiemError(
                f"{where}.evaluation.reconstruct holds {short(name)}, which is unknown"
                f"{nearest(name, known)}."
            )


def check_prior(prior: Mapping[str, Any], experiments: Mapping[str, Any], where: str) -> None:
    """Checks that a run's prior is one that the configuration makes."""
    known = experiments
    for key in ("experiment", "run"):
        if prior[key] not in known:
            raise DiemError(
                f"{where}.{key} is {short(prior[key])}, which is unknown"
                f"{nearest(prior[key], known)}."
            )
        known = known[prior[key]].get("runs", known)
    laps = known[prior["run"]]["laps"]
    if prior["lap"] is not None and prior["lap"] > laps:
        raise DiemError(f"{where}.lap is {prior['lap']}, and the run has {laps} laps.")


def check_experiment(experiment: Mapping[str, Any], where: str) -> None:
    """Checks that the keys of an experiment fit each other and its data."""
    _check_schedule(experiment["schedule"], f"{where}.schedule")
    data = DATASETS.parse(experiment["data"], f"{where}.data")
    if "clean" not in data.facts:
        check_input(experiment["data"].get("path", ""), f"{where}.data.path")
    for key in ("inception_weights", "dinov2_weights"):
        check_input(experiment["evaluation"][key] or "", f"{where}.evaluation.{key}")
    facts = _facts(data, f"{where}.data.path")
    _check_metrics(experiment["evaluation"]["metrics"], "experiments", facts, where)
    if experiment["evaluation"]["reconstruct"]:
        for fact in ("clean", "images"):
            if fact not in facts:
                raise DiemError(f"{where}.evaluation.reconstruct needs {NEEDS[fact]}.")
    if experiment["figures"]:
        facts_of_figures = _known(experiment, data, where)
        check_figures(experiment["figures"], facts_of_figures, f"{where}.figures")
    for name, run in experiment["runs"].items():
        _check_run(run, experiment["schedule"], facts, f"{where}.runs.{name}")
    check_sizes(experiment, data, where)


def check_restoration(entry: Mapping[str, Any], where: str) -> None:
    """Checks that the keys of a comparison of posterior samplers fit each other."""
    if ("train" in entry) == ("pretrained" in entry):
        raise DiemError(f"{where} needs a prior: either 'train' or 'pretrained'.")
    data = DATASETS.parse(entry["data"], f"{where}.data")
    facts = _facts(data, f"{where}.data.path")
    if "images" not in facts or data.event_shape()[0] not in (1, 3):
        raise DiemError(f"{where}.data.name must be of images of one channel or three.")
    if "clean" not in facts:
        raise DiemError(f"{where}.data.name: the comparison needs clean data, and has none.")
    if "train" in entry:
        _check_schedule(entry["train"]["schedule"], f"{where}.train.schedule")
        _check_processes(entry["train"]["m_step"], f"{where}.train.m_step")
    if entry["respaced"] and max(entry["steps"]) > 1000:
        raise DiemError(
            f"{where}.steps has {max(entry['steps'])}, and there are 1,000 noise levels to respace."
        )
    without = [name for name in entry["metrics"] if name != "lpips" or entry["lpips_weights"]]
    if entry["metrics"] and not without:
        raise DiemError(f"{where}.metrics: 'lpips' alone needs lpips_weights.")
    _check_metrics(without, "restoration", facts, where, key="metrics")
    check_images({**entry, "metrics": without}, data, where)


def _check_schedule(schedule: Mapping[str, Any], where: str) -> None:
    if schedule["sigma_min"] >= schedule["sigma_max"]:
        raise DiemError(f"{where}.sigma_min must be less than sigma_max.")


def _facts(data: DataSet, where: str) -> frozenset[str]:
    """Returns what metrics and augmentations can need of data."""
    with placed(f"{where}: "):
        shape = data.event_shape()
    facts = set(data.facts)
    if len(shape) == 3:
        facts.add("images")
        if shape[0] == 3:
            facts.add("colour")
    return frozenset(facts)


def _data_with(fact: str) -> list[str]:
    """Returns the names of the data sets that have a fact, as they are without options."""
    clean = {name: data for name, data in DATASETS.all().items() if "clean" in data.facts}
    return [name for name, data in clean.items() if fact in _facts(data.model_construct(), name)]


def _check_metrics(
    names: list[Any],
    section: str,
    facts: frozenset[str],
    where: str,
    key: str = "evaluation.metrics",
) -> None:
    if not names:
        raise DiemError(f"{where}.{key} names none: one is needed at least.")
    for spec in names:
        name, _ = split(spec, f"{where}.{key}")
        metric = METRICS.find(name)
        if section not in metric.sections:
            raise DiemError(f"{where}.{key}: {name!r} cannot be measured here.")
        lacking = [fact for fact in NEEDS if fact in metric.needs - facts]
        if lacking:
            possible = {
                other: found
                for other, found in METRICS.all().items()
                if section in found.sections and found.needs <= facts
            }
            known = ", ".join(sorted(possible, key=lambda other: possible[other].order))
            raise DiemError(
                f"{where}.{key}: {name!r} needs {NEEDS[lacking[0]]} (what can: {known})."
            )


def _known(experiment: Mapping[str, Any], data: DataSet, where: str) -> Facts:
    """Returns what figures ask of an experiment before it runs."""
    where = f"{where}.data.path"
    with placed(f"{where}: "):
        shape = data.event_shape()
    operators: dict[str, Any] = {}
    for run in experiment["runs"].values():
        entry = experiment["observations"][run["observations"]].get("operator", {})
        operators[run["observations"]] = _operator(entry.get("name"), data, where)
    return Facts(
        event_shape=shape,
        metrics=experiment["evaluation"]["metrics"],
        clean="clean" in data.facts,
        reconstructs=bool(experiment["evaluation"]["reconstruct"]),
        operators=operators,
    )


class _OfFile:
    """What a file of observations tells of its operator, which is not imported for a plan."""

    kspace = False

    def __init__(self, keeps_shape: bool | None) -> None:
        self.keeps_shape = keeps_shape


def _operator(name: str | None, data: DataSet, where: str) -> Any:
    """Returns what tells whether observations have the shape of the data, or are of k-space."""
    if "clean" in data.facts:
        return OPERATORS.find(name or "")
    if name is not None and ":" not in name:
        return OPERATORS.find(name)
    with placed(f"{where}: "):
        shape = data.observation_shape()
    return _OfFile(shape == data.event_shape())


def _check_processes(m_step: Mapping[str, Any], where: str) -> None:
    if m_step["processes"] * m_step["nodes"] > m_step["batch"]:
        nodes = f" on each of {m_step['nodes']} nodes" if m_step["nodes"] > 1 else ""
        raise DiemError(
            f"{where}.processes is {m_step['processes']}{nodes}, and a batch of {m_step['batch']}"
            " has no part for each."
        )


def _check_run(
    run: Mapping[str, Any], schedule: Mapping[str, Any], facts: frozenset[str], where: str
) -> None:
    m_step = run["m_step"]
    for name in m_step["augment"]:
        need = "colour" if AUGMENTATIONS.find(name).colour else "images"
        if need not in facts:
            raise DiemError(
                f"{where}.m_step.augment.{name} needs {NEEDS[need]}"
                f" (data.name {' or '.join(map(repr, _data_with(need)))})."
            )
    _check_processes(m_step, f"{where}.m_step")
    restart = run["e_step"]["restart"] or []
    for level in restart:
        if not schedule["sigma_min"] < level <= schedule["sigma_max"]:
            raise DiemError(
                f"{where}.e_step.restart: the level {level} must lie between schedule.sigma_min and"
                " schedule.sigma_max."
            )
    if restart and restart[0] < restart[1]:
        raise DiemError(f"{where}.e_step.restart is {short(restart)}, and must not rise.")
