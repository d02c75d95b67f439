"""The posterior samplers of appendix E that a comparison sets side by side, a file each."""

from diem.paper.methods.base import METHODS, Method, Problem

__all__ = ["METHODS", "Method", "Problem"]
