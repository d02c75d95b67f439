"""FD-DINOv2: the Fréchet distance on features of the DINOv2 network."""

from __future__ import annotations

from types import ModuleType

from diem.evaluation.metrics.base import Label
from diem.evaluation.metrics.fid import FID

__all__ = ["FDDINOv2"]


class FDDINOv2(FID):
    """The distance of many samples from the clean training split, on features of DINOv2 ViT-L/14.

    References:
        | Exposing flaws of generative model evaluation metrics and their unfair treatment of
          diffusion models (Stein et al., 2023)
        | https://arxiv.org/abs/2306.04675
    """

    name = "fd_dinov2"
    order = 14
    labels = {"fd_dinov2": Label("FD-DINOv2", "{extractor}", "↓")}
    inputs = ("dinov2_weights", "dinov2_reference")
    panel = None
    quality = None

    @staticmethod
    def source() -> ModuleType:
        from diem.evaluation import dinov2

        return dinov2
