"""The metrics: one file a metric, see :mod:`.base`.

A file holds the mathematics as functions of arrays, and the declaration that says what an
evaluation does with them. What several share lies outside, as :mod:`diem.evaluation.gaussians`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from diem.components import Kind, split
from diem.errors import DiemError
from diem.evaluation.metrics.base import Fidelity, Label, Measurement, Metric, Panel

__all__ = [
    "METRICS",
    "Entries",
    "Fidelity",
    "Label",
    "Measurement",
    "Metric",
    "Panel",
    "by_quality",
    "find_all",
    "labels",
    "panels",
    "selecting",
]


class _Metrics(Kind[Metric]):
    facts = ("name", "labels")

    def accepted(self, found: Any, name: str) -> type[Metric]:
        """Returns what an import path names, if it is a metric with all that rows need."""
        metric = super().accepted(found, name)
        if metric.name in self.names:
            raise DiemError(f"{self.key} {name!r} has the name of another, {metric.name!r}.")
        return metric


METRICS = _Metrics("metrics", __name__, Metric, besides=["base"])  # type: ignore[type-abstract]


Entries = Iterable[str | Mapping[str, Any]]
"""Entries of ``evaluation.metrics``, whose metrics are looked at besides the built-in ones."""


def find_all(entries: Entries) -> list[type[Metric]]:
    """Returns the metrics that entries of the configuration name."""
    return [METRICS.find(split(entry, METRICS.key)[0]) for entry in entries]


def _known(entries: Entries) -> list[type[Metric]]:
    metrics = dict.fromkeys([*METRICS.all().values(), *find_all(entries)])
    return sorted(metrics, key=lambda metric: metric.order)


def labels(entries: Entries = ()) -> dict[str, Label]:
    """Returns how the numbers of metrics are presented, by the names of rows, in tables' order."""
    known = _known(entries)
    return {name: label for metric in known for name, label in metric.labels.items()}


def panels(figure: str, entries: Entries = ()) -> list[str]:
    """Returns the names of the rows that a figure draws by lap, in its order."""
    known = [(metric.panel, metric) for metric in _known(entries) if metric.panel is not None]
    return _row_names([(panel.place, metric) for panel, metric in known if panel.figure == figure])


def by_quality(entries: Entries = ()) -> list[str]:
    """Returns the names of the rows that tell a prior's quality, the most telling first."""
    known = _known(entries)
    return _row_names([(m.quality, m) for m in known if m.quality is not None])


def selecting() -> list[str]:
    """Returns the names of the metrics that the lap to use is selected by."""
    return [metric.name for metric in METRICS.all().values() if metric.selects]


def _row_names(placed: list[tuple[float, type[Metric]]]) -> list[str]:
    """Returns the names of the rows of metrics, by their places."""
    ordered = sorted(placed, key=lambda pair: pair[0])
    return [name for _, metric in ordered for name in metric.labels]
