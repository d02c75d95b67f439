"""LPIPS, the learned perceptual distance between images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diem.evaluation.metrics.base import Fidelity, Label

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.arrays import Array
    from diem.evaluation.lpips import Perceptual


__all__ = ["FILES", "LPIPS"]

FILES = ("checkpoints/alex.pth", "checkpoints/alexnet-owt-7be5be79.pth")
"""What the folder of weights must hold: LPIPS' linear layers, and its network."""


class LPIPS(Fidelity):
    """The mean distance of restored images, whose weights the user gives."""

    name = "lpips"
    order = 120
    labels = {"lpips": Label("LPIPS", "{extractor}", "↓")}
    needs = frozenset({"clean", "colour"})
    inputs = ("lpips_weights",)
    parts = {"lpips_weights": FILES}
    sections = frozenset({"restoration"})

    def load(self, files: Mapping[str, Any], device: Any) -> Perceptual:
        from diem.evaluation.lpips import Perceptual

        return Perceptual(Path(files["lpips_weights"][0]).parents[1], device)

    def values(self, x: Array, truth: Array, data_range: float = 4.0, tool: Any = None) -> Tensor:
        return tool(x, truth)

    def card(self, tool: Any) -> dict[str, Any]:
        return {"extractor": tool.name, "extractor_digest": tool.digest}
