"""The structural similarity of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diem.errors import DiemError
from diem.evaluation.arrays import aligned
from diem.evaluation.metrics.base import Fidelity, Label, Planned
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.arrays import Array


__all__ = ["SSIM", "ssim"]

WINDOW = 11
"""The width of a window in pixels."""


def ssim(x: Array, reference: Array, data_range: float = 4.0) -> Tensor:
    r"""Returns each image's structural similarity, from -1 to 1.

    It is scikit-image's, with the windows of the reference: Gaussians of a standard deviation of
    1.5 pixels, 11 pixels wide. The mean is over the windows that lie within the image, and over
    the channels.

    References:
        | Image Quality Assessment: From Error Visibility to Structural Similarity
          (Wang et al., 2004)
        | https://doi.org/10.1109/TIP.2003.819861

    Arguments:
        x: The images, with shape :math:`(N, C, H, W)`, of 11 pixels or more in height and width.
        reference: The true images, with the same shape.
        data_range: The range of the data's scale, that of [-2, 2] by default.

    Returns:
        The similarities, with shape :math:`(N,)`; not a number for an image that is not finite.

    Raises:
        ValueError: If the shapes differ.
        DiemError: If the images are smaller than a window.
    """
    from skimage.metrics import structural_similarity  # most commands do without

    x, reference = (v.cpu().numpy() for v in aligned(x, reference))
    if min(x.shape[2:]) < WINDOW:
        raise DiemError(
            f"metrics: 'ssim' needs images of {WINDOW} x {WINDOW} pixels or more, and these have"
            f" {x.shape[2:]}."
        )
    values = [
        structural_similarity(
            *pair,
            data_range=data_range,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for pair in zip(x, reference, strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64)


class SSIM(Fidelity):
    """The mean similarity of reconstructed images."""

    name = "ssim"
    order = 100
    labels = {"ssim": Label("SSIM", better="↑")}
    needs = frozenset({"clean", "images"})
    sections = frozenset({"experiments", "restoration"})

    def problem(self, planned: Planned) -> str | None:
        height, width = planned.event_shape[1:]
        small = min(height, width) < WINDOW
        fits = f"images of {WINDOW} x {WINDOW} pixels or more, not {height} x {width}"
        return fits if small else None

    def values(self, x: Array, truth: Array, data_range: float = 4.0, tool: Any = None) -> Tensor:
        return ssim(x, truth, data_range)
