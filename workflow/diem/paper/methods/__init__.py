"""The posterior samplers of appendix E that a comparison sets side by side, a file each."""

from diem.components import Kind
from diem.paper.methods.base import Method, Problem

__all__ = ["METHODS", "Method", "Problem"]

METHODS: Kind[Method] = Kind("method", __name__, Method, besides=["base"])  # type: ignore[type-abstract]
"""The posterior samplers that a comparison can name."""
