"""How metrics and what they measure are called, in tables and on the axes of figures."""

from collections.abc import Mapping
from types import MappingProxyType

from diem.evaluation.metrics import Label, labels

__all__ = ["METRICS", "NO_LABELS", "SUBJECTS", "Ceilings", "heading_of", "label_of", "metric_label"]

METRICS = labels()
"""How metrics are presented, in the order of the tables' columns."""

SUBJECTS = {
    "prior": "prior samples",
    "posterior": "posterior samples",
    "posterior_mean": "posterior means",
    "e_step": "samples it was trained on",
}
"""How the subjects of metrics are called."""

Ceilings = Mapping[str, Mapping[str, str]]
"""What ceilings are called, by the set of observations and the run of their rows, see
:func:`diem.em.laps.ceiling_labels`."""

NO_LABELS: Ceilings = MappingProxyType({})
"""Each ceiling is called by its stage."""


def label_of(metric: str, known: Mapping[str, Label] = METRICS) -> Label:
    """Returns how a metric is presented; one that is not known stands for itself.

    Arguments:
        metric: The name in the rows.
        known: How metrics are presented.
    """
    return known.get(metric, Label(metric.replace("_", " ")))


def metric_label(metric: str, extractor: str = "", known: Mapping[str, Label] = METRICS) -> str:
    """Returns a metric's name with its unit, for an axis or a column.

    Arguments:
        metric: The name in the rows.
        extractor: The name of the rows' feature extractor.
        known: How metrics are presented.
    """
    name, unit, *_ = label_of(metric, known)
    return f"{name} ({unit.format(extractor=extractor)})" if unit else name


def heading_of(metric: str, known: Mapping[str, Label] = METRICS, last: str = "") -> list[str]:
    """Returns what a column of a metric is called, as lines: its name, its unit, and the arrow.

    Names of extractors are left to the notes of the table.

    Arguments:
        metric: The name in the rows.
        known: How metrics are presented.
        last: A line below, before the arrow.
    """
    label = label_of(metric, known)
    unit = f" ({label.unit})" if label.unit and "{extractor}" not in label.unit else ""
    name, bracket, unit = (label.heading or label.name + unit).partition(" (")
    lines = [name, f"({unit}" if bracket else "", last]
    *lines, end = [line for line in lines if line]
    return [*lines, f"{end} {label.better}".strip()]
