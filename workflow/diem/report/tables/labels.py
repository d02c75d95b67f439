"""How metrics and what they measure are called, in tables and on the axes of figures."""

from diem.evaluation.metrics import Label, labels

__all__ = ["METRICS", "SUBJECTS", "metric_label"]

METRICS = labels()
"""How metrics are presented, in the order of the tables' columns."""

SUBJECTS = {
    "prior": "prior samples",
    "posterior": "posterior samples",
    "posterior_mean": "posterior means",
    "e_step": "samples it was trained on",
}
"""How the subjects of metrics are called."""


def metric_label(metric: str, extractor: str = "") -> str:
    """Returns a metric's name with its unit, for an axis or a column.

    Arguments:
        metric: The name in the rows; one that is not in :data:`METRICS` stands for itself.
        extractor: The name of the rows' feature extractor.
    """
    name, unit, *_ = METRICS.get(metric, Label(metric.replace("_", " ")))
    return f"{name} ({unit.format(extractor=extractor)})" if unit else name
