"""Networks whose features of images are compared, and references of such features."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from diem.data.sets import DATASETS
from diem.data.sets.base import to_bytes
from diem.errors import DiemError
from diem.evaluation.gaussians import Moments, feature_moments
from diem.files.hdf5 import HasRows
from diem.files.tensors import load_tensors, save_tensors
from diem.jobs.resume import Keep, no_cache, prefixed

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation, Samples

__all__ = ["FeatureNetwork", "Reference", "features_of", "load_reference"]

BATCH = 128

NAMES = ("features", "logits")
"""What a network returns, in this order."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A network whose features of colour images are compared.

    Arguments:
        network: The network, which takes 8-bit pixels, of shape ``(B, 3, H, W)``, and returns a
            tuple: the features, and the logits if it has any.
        name: Its name, for the card of a metric.
        digest: The first 16 hexadecimal digits of the SHA256 of the file of weights.
    """

    network: nn.Module
    name: str
    digest: str

    @property
    def card(self) -> dict[str, str]:
        """What tells the network on the card of a number."""
        return {"extractor": self.name, "extractor_digest": self.digest}

    def features(
        self, x: HasRows, step: float, keep: Keep = no_cache
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yields what the network returns, batch by batch.

        Arguments:
            x: Images in [-2, 2], of shape ``(N, 3, H, W)``, which are read where the piece was not
                kept. They are rounded as an image file would be.
            step: How far apart 8-bit pixels are, see :class:`diem.data.sets.DataSet`.
            keep: Makes the pieces of the work that were not kept, see :mod:`diem.jobs.resume`.

        Yields:
            The features, of shape ``(B, F)``, and the logits, if there are any, on the CPU.
        """
        for number, start in enumerate(range(0, len(x), BATCH)):
            piece = keep(str(number), partial(self._piece, x, slice(start, start + BATCH), step))
            yield tuple(torch.from_numpy(piece[name]) for name in NAMES if name in piece)

    @torch.no_grad()
    def _piece(self, x: HasRows, rows: slice, step: float) -> dict[str, np.ndarray]:
        device = next(self.network.parameters()).device
        found = self.network(to_bytes(torch.as_tensor(x[rows]), step).to(device))
        return {name: value.cpu().numpy() for name, value in zip(NAMES, found, strict=False)}


@dataclass(frozen=True)
class Reference:
    """The Gaussian fit of the features of a reference set.

    Arguments:
        moments: The fit.
        samples: The number of images.
        split: Their split of the clean data.
        extractor: The name and the digest of the network.
    """

    moments: Moments
    samples: int
    split: str
    extractor: tuple[str, str]

    @property
    def card(self) -> dict[str, Any]:
        """What tells the reference on the card of a number."""
        return {"reference": f"clean {self.split}", "reference_samples": self.samples}

    @classmethod
    def of(
        cls, x: HasRows, split: str, network: FeatureNetwork, step: float, keep: Keep = no_cache
    ) -> "Reference":
        """Returns the reference of images, see :meth:`FeatureNetwork.features`."""
        moments = feature_moments(features for features, *_ in network.features(x, step, keep))
        return cls(moments, len(x), split, (network.name, network.digest))

    def save(self, path: str | Path) -> None:
        """Writes the reference as safetensors."""
        card = {"samples": self.samples, "split": self.split, "extractor": self.extractor}
        save_tensors(path, self.moments._asdict(), {"reference": json.dumps(card)})


def load_reference(path: str | Path, network: FeatureNetwork) -> Reference:
    """Reads a reference.

    Raises:
        DiemError: If the file is no reference, or one of another network.
    """
    tensors, header = load_tensors(path)
    try:
        card = json.loads(header["reference"])
        card["extractor"] = tuple(card["extractor"])
        reference = Reference(Moments(**tensors), **card)
    except (LookupError, TypeError, ValueError):
        raise DiemError(f"{path}: this is no reference of features.") from None
    if reference.extractor != (network.name, network.digest):
        raise DiemError(
            f"{path}: it was made with {' '.join(reference.extractor)}, and the weights are those"
            f" of {network.name} {network.digest}."
        )
    return reference


def features_of(
    evaluation: "Evaluation", samples: "Samples", network: FeatureNetwork, name: str
) -> Iterator[tuple[Tensor, ...]]:
    """Yields what a network returns of samples; the pieces of one metric are those of another.

    Arguments:
        evaluation: The evaluation.
        samples: The samples.
        network: The network.
        name: The name that the pieces' names begin with.
    """
    keep = prefixed(evaluation.job.keep, f"{name}/{samples.subject}")
    step = DATASETS.find(evaluation.data["name"]).step
    return network.features(samples.x, step, keep)
