"""LPIPS, the learned perceptual distance between images, from weights that the user gives."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diem.errors import DiemError
from diem.evaluation.metrics.lpips import FILES
from diem.files.tensors import content_digest, load_weights

__all__ = ["LEAST", "NAME", "Perceptual"]

NAME = "lpips-alexnet"

LEAST = 31
"""The least height and width, in pixels, of which the network's last layer sees anything."""

MEAN, SCALE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The mean and the standard deviation of ImageNet's channels, which the network expects."""


class Layer(NamedTuple):
    """A convolution of AlexNet with what comes before and after it.

    Attributes:
        number: Its number among torchvision's `features`, by which its weights are named.
        shape: The shape of its kernels.
        stride: Its stride.
        padding: Its padding.
        pooled: Whether the maximum of 3 x 3 pixels, two apart, comes before.
    """

    number: int
    shape: tuple[int, ...]
    stride: int
    padding: int
    pooled: bool


LAYERS = (
    Layer(0, (64, 3, 11, 11), 4, 2, False),
    Layer(3, (192, 64, 5, 5), 1, 2, True),
    Layer(6, (384, 192, 3, 3), 1, 1, True),
    Layer(8, (256, 384, 3, 3), 1, 1, False),
    Layer(10, (256, 256, 3, 3), 1, 1, False),
)


class Perceptual:
    """LPIPS on the features of AlexNet, as piqa computes it (version 0.1 of the weights).

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
        DiemError: If a file is missing, or does not hold its weights.
    """

    name = NAME

    def __init__(self, folder: str | Path, device: str | torch.device = "cpu") -> None:
        linear, network = paths = [Path(folder) / name for name in FILES]
        shapes: dict[str, tuple[int, ...]] = {
            f"lin{i}.model.1.weight": (1, layer.shape[0], 1, 1) for i, layer in enumerate(LAYERS)
        }
        self.linear = list(_weights(linear, shapes, device).values())
        shapes = {f"features.{layer.number}.weight": layer.shape for layer in LAYERS}
        shapes |= {f"features.{layer.number}.bias": layer.shape[:1] for layer in LAYERS}
        self.network = _weights(network, shapes, device)
        self.digest = content_digest(paths)
        self.device = torch.device(device)

    @torch.no_grad()
    def __call__(self, x: Tensor, reference: Tensor) -> Tensor:
        """Returns each image's distance, without unit, with shape (N,).

        Arguments:
            x: The images in [0, 1], with shape (N, 3, H, W); values beyond are clipped.
            reference: The true images, with the same shape.

        Raises:
            DiemError: If the images are too small.
        """
        if min(x.shape[2:]) < LEAST:
            raise DiemError(
                f"metrics: 'lpips' needs images of {LEAST} x {LEAST} pixels or more, not"
                f" {x.shape[2]} x {x.shape[3]}."
            )
        parts = zip(x.split(16), reference.split(16), strict=True)
        return torch.cat([self._distances(*part) for part in parts]).cpu().double()

    def _distances(self, x: Tensor, reference: Tensor) -> Tensor:
        features = zip(self._features(x), self._features(reference), self.linear, strict=True)
        terms = [((a - b).square() * w).sum(dim=1).mean(dim=(1, 2)) for a, b, w in features]
        return torch.stack(terms).sum(dim=0)

    def _features(self, x: Tensor) -> Iterator[Tensor]:
        """Yields the features of each layer, of unit norm at each pixel."""
        mean, scale = (torch.tensor(v, device=self.device)[:, None, None] for v in (MEAN, SCALE))
        h = (x.to(self.device, torch.float32).clamp(0, 1) - mean) / scale
        for layer in LAYERS:
            if layer.pooled:
                h = F.max_pool2d(h, 3, 2)
            weight, bias = (
                self.network[f"features.{layer.number}.{k}"] for k in ("weight", "bias")
            )
            h = F.relu(F.conv2d(h, weight, bias, layer.stride, layer.padding))
            yield h / (torch.linalg.vector_norm(h, dim=1, keepdim=True) + 1e-10)


def _weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]], device: str | torch.device
) -> dict[str, Tensor]:
    """Reads tensors of a file by their names, of given shapes."""
    if not path.is_file():
        raise DiemError(f"lpips_weights: there is no such file: {path}.")
    state, found = load_weights(path), {}
    for name, shape in shapes.items():
        value = state.get(name) if isinstance(state, Mapping) else None
        if not isinstance(value, Tensor) or value.shape != shape:
            raise DiemError(f"{path}: these are no weights of {NAME} ({name!r} is not there).")
        found[name] = value.to(device, torch.float32)
    return found
