"""Data sets, one file each: clean data to simulate observations from, or a user's observations."""

from diem.components import Kind
from diem.data.sets.base import SPLITS, DataSet, Split

__all__ = ["DATASETS", "SPLITS", "DataSet", "Split"]

DATASETS = Kind("data", "diem.data.sets", DataSet, besides=("base",))  # type: ignore[type-abstract]
"""The data sets, see :class:`diem.components.Kind`."""
