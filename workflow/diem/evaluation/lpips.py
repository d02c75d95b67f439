"""LPIPS, the learned perceptual distance between images, from weights that the user gives."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from diem.errors import DiemError
from diem.evaluation.metrics.lpips import FILES
from diem.files.tensors import content_digest, load_weights

__all__ = ["NAME", "Perceptual"]

NAME = "lpips-vgg16"


class Perceptual:
    """LPIPS on the features of VGG16, as torch-fidelity computes it.

    References:
        | The Unreasonable Effectiveness of Deep Features as a Perceptual Metric
          (Zhang et al., 2018)
        | https://arxiv.org/abs/1801.03924

    Arguments:
        folder: A folder of torch.hub that holds :data:`FILES`; nothing is downloaded.
        device: The device to compute on.

    Attributes:
        name: The network's name.
        digest: What identifies the weights.

    Raises:
        DiemError: If a file is missing, or does not hold weights.
    """

    name = NAME

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu") -> None:
        paths = [Path(folder) / name for name in FILES]
        for path in paths:
            _check(path)
        self.digest = content_digest(paths)
        self.device = torch.device(device)
        with _hub(folder):
            from torch_fidelity.sample_similarity_lpips import SampleSimilarityLPIPS

            try:
                self.model = SampleSimilarityLPIPS(NAME).to(self.device)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                raise DiemError(f"{folder}: these are no weights of {NAME} ({reason}).") from None

    @torch.no_grad()
    def __call__(self, x: Tensor, reference: Tensor) -> Tensor:
        """Returns each image's distance, without unit, with shape (N,).

        Arguments:
            x: The images in [-2, 2], with shape (N, 3, H, W); values beyond are clipped.
            reference: The true images, with the same shape.
        """
        pixels = (((v.to(self.device) + 2) / 4).clamp(0, 1) * 255 for v in (x, reference))
        parts = zip(*(v.split(16) for v in pixels), strict=True)
        return torch.cat([self.model(*part).flatten() for part in parts]).cpu().double()


def _check(path: Path) -> None:
    """Raises a :class:`DiemError` unless a file holds nothing but tensors."""
    if not path.is_file():
        raise DiemError(f"lpips_weights: there is no such file: {path}.")
    if not all(isinstance(value, Tensor) for value in load_weights(path).values()):
        raise DiemError(f"{path}: this file holds no weights.")


@contextlib.contextmanager
def _hub(folder: str | Path) -> Iterator[None]:
    """Lets torch.hub find its files in a folder, and load tensors from them alone."""
    before, forced = torch.hub.get_dir(), os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    torch.hub.set_dir(str(folder))
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        yield
    finally:
        torch.hub.set_dir(before)
        del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        if forced is not None:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = forced
