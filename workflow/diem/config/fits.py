"""Checks of sizes: what the declared shape and counts of data tell before anything runs.

What only files can tell that are not there is left to the job that reads them.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diem.components import split
from diem.data.sets import DATASETS
from diem.data.sets.base import DataSet, Told
from diem.em.augmentations import AUGMENTATIONS
from diem.em.laps import sampled
from diem.errors import DiemError, placed
from diem.evaluation.metrics import METRICS
from diem.evaluation.metrics.base import Planned
from diem.networks import NETWORKS
from diem.operators import OPERATORS

__all__ = ["check_images", "check_new_observations", "check_sizes"]

TRAINED = ("train", "validation")
"""The splits that an E-step draws samples of."""


def check_sizes(experiment: Mapping[str, Any], data: DataSet, where: str) -> None:
    """Checks that an experiment's settings fit the sizes of its data.

    Raises:
        DiemError: With one sentence that names the key and what would fit.
    """
    shape, counts = data.event_shape(), _counts(data, where)
    _check_network(experiment["network"], shape, where)
    told = data.told()
    for name, entry in experiment["observations"].items():
        if told is None:
            _check_observations(entry, shape, f"{where}.observations.{name}")
        else:
            scale = experiment["data"].get("scale")
            _check_own(entry, told, shape, scale, f"{where}.observations.{name}")
    for name, run in experiment["runs"].items():
        _check_augmentations(run["m_step"], shape, f"{where}.runs.{name}")
        if counts is not None:
            _check_blocks(run["e_step"], counts, f"{where}.runs.{name}")
    evaluation = experiment["evaluation"]
    _check_metrics(evaluation["metrics"], Planned(shape, counts, evaluation), where)
    if counts is None:
        return
    _check_splits(counts, counts, where)
    if evaluation["test_observations"] > counts["test"]:
        raise DiemError(
            f"{where}.evaluation.test_observations is {evaluation['test_observations']}, and the"
            f" data have {counts['test']} test observations: set it to no more."
        )
    if data.shares_images() and _selects(evaluation["metrics"]):
        raise DiemError(
            f"{where}.data.validation and data.test hold the same images, so that a lap chosen by"
            " 'prediction' (evaluation.metrics) would be reported on what chose it: lower one of"
            " the two."
        )


def check_new_observations(
    entry: Mapping[str, Any], experiments: Mapping[str, Any], where: str
) -> None:
    """Checks that the file of an entry of ``posterior`` tells what is needed, if it is there.

    Raises:
        DiemError: With one sentence that names the key and what would fit.
    """
    path, prior = entry["observations"], entry["prior"]
    if not Path(path).is_file():
        return
    data = DATASETS.parse({"name": "hdf5", "path": path})
    with placed(f"{where}.observations: "):
        told, of = data.told(), data.event_shape()
    given = {"operator": {"name": entry.get("operator")}, "sigma_y": entry.get("sigma_y")}
    learned = experiments[prior["experiment"]]["data"] if isinstance(prior, Mapping) else {}
    if told is not None:
        _check_own(given, told, of, learned.get("scale"), where)
    if learned:
        shape = DATASETS.parse(learned).event_shape()
        if of != shape:
            raise DiemError(
                f"{where}.observations: {path} holds observations of x with shape"
                f" {of}, and the prior is of shape {shape}."
            )


def check_images(entry: Mapping[str, Any], data: DataSet, where: str) -> None:
    """Checks that the settings of a comparison of posterior samplers fit the sizes of its images.

    Raises:
        DiemError: With one sentence that names the key and what would fit.
    """
    shape, counts = data.event_shape(), _counts(data, where)
    for name, task in entry["tasks"].items():
        _check_observations(task, shape, f"{where}.tasks.{name}")
    if "train" in entry:
        _check_network(entry["train"]["network"], shape, f"{where}.train")
        _check_augmentations(entry["train"]["m_step"], shape, f"{where}.train")
    _check_metrics(entry["metrics"], Planned(shape, counts, {}), where, "metrics")
    if counts is None:
        return
    _check_splits(counts, ("train", "validation", "test") if "train" in entry else ("test",), where)
    if entry["images"] > counts["test"]:
        raise DiemError(
            f"{where}.images is {entry['images']}, and the data have {counts['test']} test images:"
            " set it to no more."
        )


def _counts(data: DataSet, where: str) -> Mapping[str, int] | None:
    """Returns the number of samples by split, or nothing where only missing files can tell."""
    with placed(f"{where}."):
        data.check()
    try:
        return data.counts()
    except DiemError:
        return None


def _check_network(entry: Mapping[str, Any], shape: tuple[int, ...], where: str) -> None:
    """Checks that a network takes samples of a shape; one of a user's own is tried."""
    with placed(f"{where}."):
        network = NETWORKS.parse(entry)
        network.check(shape)
        if ":" in entry["name"]:
            from diem.networks.counting import counted

            counted(network, shape)


def _check_observations(entry: Mapping[str, Any], shape: Sequence[int], where: str) -> None:
    options = dict(entry["operator"])
    operator = OPERATORS.find(options.pop("name"))
    with placed(f"{where}."):
        operator.suits(tuple(shape), **options)
    sigma_y = entry["sigma_y"]
    if operator.keeps_shape and isinstance(sigma_y, list) and len(sigma_y) != math.prod(shape):
        raise DiemError(
            f"{where}.sigma_y holds {len(sigma_y)} values, and an observation {math.prod(shape)}:"
            " give one for each, or one number for all."
        )


def _check_own(
    entry: Mapping[str, Any], told: Told, shape: tuple[int, ...], scale: Any, where: str
) -> None:
    """Checks that a file and the configuration together tell the operator and the noise, once.

    And that its observations have the shape of ``x``, if the operator keeps it, and can be scaled
    by column or channel, if the data are. Of a class of the user's own its jobs tell.
    """
    operator = entry.get("operator", {}).get("name")
    if operator is None and told.operator is None:
        raise DiemError(
            f"{where}.operator is missing: the file does not name its operator; give a built-in"
            f" one ({', '.join(OPERATORS.names)}) or module:Class."
        )
    if None not in (operator, told.operator) and operator != told.operator:
        raise DiemError(
            f"{where}.operator.name is {operator!r}, and the file names {told.operator!r}."
        )
    if operator is None and told.operator not in OPERATORS.names:
        raise DiemError(
            f"{where}.operator is missing: the file's operator {told.operator!r} is none that is"
            " built in, and a class is imported only if you name it."
        )
    known = operator or told.operator or ""
    keeps = known in OPERATORS.names and OPERATORS.find(known).keeps_shape
    if keeps and told.observation_shape != shape:
        raise DiemError(
            f"{where}.operator: {known!r} keeps the shape of x, which is {shape} by the file's"
            f" attribute event_shape, and its y have rows of shape {told.observation_shape}: one of"
            " the two is not as it should be, or the operator is another."
        )
    ours = known in OPERATORS.names or known.startswith("diem.operators.given:")
    if isinstance(scale, list) and ours:
        can = [name for name in OPERATORS.names if OPERATORS.find(name).elementwise]
        if not OPERATORS.find(known).elementwise:
            raise DiemError(
                f"{where}.operator is {known!r}, and data.scale is a list, one number a column or"
                " channel: it needs observations of single values of x, by"
                f" {' or '.join(map(repr, can))}."
            )
    given = entry.get("sigma_y") is not None
    if given == told.sigma_y:
        reason = "the file holds it" if given else "the file does not hold it"
        raise DiemError(f"{where}.sigma_y is {'given' if given else 'missing'}: {reason}.")


def _check_augmentations(m_step: Mapping[str, Any], shape: Sequence[int], where: str) -> None:
    for name, value in m_step["augment"].items():
        with placed(f"{where}."):
            AUGMENTATIONS.find(name).of(value, f"m_step.augment.{name}").check(tuple(shape))


def _check_blocks(e_step: Mapping[str, Any], counts: Mapping[str, int], where: str) -> None:
    for name in TRAINED:
        if counts[name] > 0 and sampled(e_step, counts[name]) == 0:
            raise DiemError(
                f"{where}.e_step.drop_last leaves none of the {counts[name]} {name} observations,"
                f" which fill no block of {e_step['block']}: lower e_step.block, or set drop_last"
                " to false."
            )


def _check_splits(counts: Mapping[str, int], needed: Sequence[str] | Any, where: str) -> None:
    for name in needed:
        if counts[name] < 1:
            raise DiemError(
                f"{where}.data: there are {counts[name]} samples for {name!r}, where at least one"
                " is needed."
            )


def _check_metrics(
    entries: Sequence[Any], planned: Planned, where: str, key: str = "evaluation.metrics"
) -> None:
    for entry in entries:
        if problem := METRICS.parse(entry, f"{where}.{key}").problem(planned):
            name, _ = split(entry, f"{where}.{key}")
            raise DiemError(f"{where}.{key}: {name!r} needs {problem}.")


def _selects(entries: Sequence[Any]) -> bool:
    return any(METRICS.parse(entry).selects for entry in entries)
