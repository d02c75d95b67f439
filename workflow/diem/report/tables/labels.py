"""How metrics and what they measure are called, in tables and on the axes of figures."""

from collections.abc import Mapping
from types import MappingProxyType

from diem.evaluation.metrics import Label, labels

__all__ = ["METRICS", "NO_LABELS", "SUBJECTS", "Ceilings", "label_of", "metric_label"]

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
