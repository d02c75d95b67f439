"""The Inception network of FID and Inception score, which is torch-fidelity's.

References:
    | GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium
      (Heusel et al., 2017)
    | https://arxiv.org/abs/1706.08500
    | Improved Techniques for Training GANs (Salimans et al., 2016)
    | https://arxiv.org/abs/1606.03498
    | https://github.com/toshas/torch-fidelity
"""

import hashlib
import io
import json
import pickle
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
from diem.files.downloads import DOWNLOADS, INCEPTION_WEIGHTS
from diem.files.hdf5 import HasRows
from diem.files.tensors import load_tensors, save_tensors
from diem.jobs.resume import Keep, no_cache, prefixed

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation, Samples

__all__ = [
    "Inception",
    "Reference",
    "features_of",
    "load",
    "load_reference",
    "network_of",
    "pooled_features",
]

NAME = "inception-v3-compat"
"""What torch-fidelity calls the network that was ported from TensorFlow with its weights."""

BATCH = 128


@dataclass(frozen=True)
class Inception:
    """The Inception network, which takes colour images.

    Arguments:
        network: The network.
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
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields what FID and the Inception score are made of, batch by batch.

        Arguments:
            x: Images in [-2, 2], of shape ``(N, 3, H, W)``, which are read where the piece was not
                kept. They are rounded as an image file would be.
            step: How far apart 8-bit pixels are, see :class:`diem.data.sets.DataSet`.
            keep: Makes the pieces of the work that were not kept, see :mod:`diem.jobs.resume`.

        Yields:
            The pooled features, of shape ``(B, 2048)``, and the logits without bias, of shape
            ``(B, 1008)``, on the CPU.
        """
        for number, start in enumerate(range(0, len(x), BATCH)):
            piece = keep(str(number), partial(self._piece, x, slice(start, start + BATCH), step))
            yield torch.from_numpy(piece["features"]), torch.from_numpy(piece["logits"])

    @torch.no_grad()
    def _piece(self, x: HasRows, rows: slice, step: float) -> dict[str, np.ndarray]:
        device = next(self.network.parameters()).device
        features, logits = self.network(to_bytes(torch.as_tensor(x[rows]), step).to(device))
        return {"features": features.cpu().numpy(), "logits": logits.cpu().numpy()}


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
        cls, x: HasRows, split: str, inception: Inception, step: float, keep: Keep = no_cache
    ) -> "Reference":
        """Returns the reference of images, see :meth:`Inception.features`."""
        moments = feature_moments(features for features, _ in inception.features(x, step, keep))
        return cls(moments, len(x), split, (inception.name, inception.digest))

    def save(self, path: str | Path) -> None:
        """Writes the reference as safetensors."""
        card = {"samples": self.samples, "split": self.split, "extractor": self.extractor}
        save_tensors(path, self.moments._asdict(), {"reference": json.dumps(card)})


def load_reference(path: str | Path, inception: Inception) -> Reference:
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
        raise DiemError(f"{path}: this is no reference of Inception features.") from None
    if reference.extractor != (inception.name, inception.digest):
        raise DiemError(
            f"{path}: it was made with {' '.join(reference.extractor)}, and the weights are those"
            f" of {inception.name} {inception.digest}."
        )
    return reference


def load(path: str | Path, device: str | torch.device = "cpu") -> Inception:
    """Returns the network with the weights of a file.

    Arguments:
        path: The weights as PyTorch's file of tensors, which are torch-fidelity's
            ``weights-inception-2015-12-05-6726825d.pth``. With other weights the network is named
            so, since its numbers are not FIDs that can be compared.
        device: The device to compute on.

    Raises:
        DiemError: If the file is missing or holds anything but the network's weights.
    """
    try:  # it imports torchvision, which most commands do without
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DiemError(
            "FID and Inception score need a torchvision that was built for this PyTorch"
            f" ({torch.__version__}), and the one installed was not ({reason}): install both from"
            " the same index, for instance pip install torch==2.13.0 torchvision==0.28.0"
            " --index-url https://download.pytorch.org/whl/cpu."
        ) from None

    if not Path(path).is_file():
        raise DiemError(f"{path}: there is no such file.")
    content = Path(path).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    official = sha256 == DOWNLOADS[INCEPTION_WEIGHTS].sha256
    safe = io.BytesIO()
    try:
        # torch-fidelity unpickles whatever it is given: it is given what was read without.
        torch.save(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), safe)
        safe.seek(0)
        network = FeatureExtractorInceptionV3(
            NAME, ["2048", "logits_unbiased"], feature_extractor_weights_path=safe
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError):
        raise DiemError(f"{path}: these are no weights of {NAME}.") from None
    name = NAME if official else f"{NAME} with other weights"
    return Inception(network.to(device), name, sha256[:16])


def network_of(evaluation: "Evaluation") -> Inception:
    """Returns the network of an evaluation, which several metrics share."""
    return evaluation.once(load, evaluation.file("inception_weights"), evaluation.device)


def features_of(evaluation: "Evaluation", samples: "Samples") -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the features and logits of samples; the pieces of one metric are those of another."""
    keep = prefixed(evaluation.job.keep, f"inception/{samples.subject}")
    step = DATASETS.find(evaluation.data["name"]).step
    return network_of(evaluation).features(samples.x, step, keep)


def pooled_features(evaluation: "Evaluation", samples: "Samples") -> Tensor:
    """Returns the features of all samples at once, of shape ``(N, 2048)``."""
    return torch.cat([pooled for pooled, _ in features_of(evaluation, samples)])
