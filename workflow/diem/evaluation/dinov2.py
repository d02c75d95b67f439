"""The DINOv2 network of FD-DINOv2, written anew: torch-fidelity downloads the authors' code.

References:
    | DINOv2: Learning Robust Visual Features without Supervision (Oquab et al., 2023)
    | https://arxiv.org/abs/2304.07193
    | https://github.com/facebookresearch/dinov2
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from diem.errors import DiemError
from diem.evaluation import feature_network
from diem.evaluation.feature_network import FeatureNetwork
from diem.evaluation.lpips import MEAN, SCALE
from diem.files.downloads import DINOV2_WEIGHTS, DOWNLOADS
from diem.files.tensors import load_weights

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation, Samples

__all__ = ["VisionTransformer", "features_of", "load", "network_of", "resized"]

NAME = "dinov2-vit-l-14"

SIZE, PATCH, TRAINED = 224, 14, 37
"""The pixels of a side of images and of patches, and the patches of a side in training."""

HEAD = 64
"""The features of a head of attention, in networks of every size."""

BATCH = 32
"""The images that are in the network at once."""


class Block(nn.Module):
    """Attention between all patches, then a perceptron of each.

    Arguments:
        width: The features of a patch.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": torch.ones(width)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Returns patches, with the shape of those that are given, ``(B, patches, width)``."""
        qkv = self.attn["qkv"](self.norm1(x)).unflatten(-1, (3, -1, HEAD))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.ls1["gamma"] * self.attn["proj"](attended)
        return x + self.ls2["gamma"] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class VisionTransformer(nn.Module):
    """A vision transformer of 14 x 14 pixels a patch, whose parameters have the authors' names.

    Arguments:
        width: The number of features, a multiple of 64.
        depth: The number of blocks.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + TRAINED**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of training alone
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Returns the features of images, of shape ``(B, width)``, alone.

        Arguments:
            pixels: 8-bit pixels, of shape ``(B, 3, H, W)``.
        """
        return (torch.cat([self._features(part) for part in pixels.split(BATCH)]),)

    def _features(self, pixels: Tensor) -> Tensor:
        mean, scale = (self.norm.weight.new_tensor(v)[:, None, None] for v in (MEAN, SCALE))
        x = self.patch_embed["proj"]((resized(pixels) / 255 - mean) / scale)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).mT], dim=1)
        x = x + self._positions()
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])

    def _positions(self) -> Tensor:
        """Returns what tells patches apart, of as many as the images have."""
        first, trained = self.pos_embed.split([1, TRAINED**2], dim=1)
        trained = trained.mT.unflatten(-1, (TRAINED, TRAINED))
        # The authors' tenth of a patch shifts all positions: without it features are others.
        factor = (SIZE / PATCH + 0.1) / TRAINED
        moved = F.interpolate(trained, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([first, moved.flatten(2).mT], dim=1)


def resized(pixels: Tensor) -> Tensor:
    """Returns images of 224 x 224 pixels as Pillow resizes them for the published numbers.

    References:
        | Exposing flaws of generative model evaluation metrics and their unfair treatment of
          diffusion models (Stein et al., 2023)
        | https://github.com/layer6ai-labs/dgm-eval

    Arguments:
        pixels: 8-bit pixels, of shape ``(B, 3, H, W)``.

    Returns:
        Whole numbers from 0 to 255, in single precision; of square images now and then one is off
        by one.
    """
    x = pixels.float()
    # Pillow goes along rows, then along columns, with 8-bit pixels between.
    for shape in ((x.shape[2], SIZE), (SIZE, SIZE)):
        x = F.interpolate(x, shape, mode="bicubic", antialias=True).round().clamp(0, 255)
    return x


def load(path: str | Path, device: str | torch.device = "cpu") -> FeatureNetwork:
    """Returns the network with the weights of a file, from which nothing but tensors is loaded.

    Arguments:
        path: The weights as PyTorch's file of tensors, which are the authors'
            ``dinov2_vitl14_pretrain.pth``. With other weights the network is named so, since its
            numbers compare with no published ones.
        device: The device to compute on.

    Raises:
        DiemError: If the file is missing or holds anything but such a network's weights.
    """
    if not Path(path).is_file():
        raise DiemError(f"{path}: there is no such file.")
    with Path(path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    weights = load_weights(path)
    try:
        network = _with(weights)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        raise DiemError(f"{path}: these are no weights of {NAME}.") from None
    official = sha256 == DOWNLOADS[DINOV2_WEIGHTS].sha256
    name = NAME if official else f"{NAME} with other weights"
    return FeatureNetwork(network.to(device, torch.float32), name, sha256[:16])


def _with(weights: Mapping[str, Tensor]) -> VisionTransformer:
    """Returns the network of the size that weights have."""
    if not isinstance(weights, Mapping):
        raise TypeError
    width = weights["cls_token"].shape[-1]
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    sound = (w.layout == torch.strided and w.isfinite().all() for w in weights.values())
    if width % HEAD or not depth or not all(sound):
        raise ValueError
    if not all(w.is_floating_point() for w in weights.values()):
        raise TypeError
    with torch.device("meta"):  # nothing is drawn that the weights replace
        network = VisionTransformer(width, depth)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def network_of(evaluation: "Evaluation") -> FeatureNetwork:
    """Returns the network of an evaluation, which several metrics share."""
    return evaluation.once(load, evaluation.file("dinov2_weights"), evaluation.device)


def features_of(evaluation: "Evaluation", samples: "Samples") -> Iterator[tuple[Tensor, ...]]:
    """Yields the features, of shape ``(B, 1024)``, in tuples of one."""
    return feature_network.features_of(evaluation, samples, network_of(evaluation), "dinov2")
