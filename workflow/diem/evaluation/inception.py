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
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diem.errors import DiemError
from diem.evaluation import feature_network
from diem.evaluation.feature_network import FeatureNetwork
from diem.files.downloads import DOWNLOADS, INCEPTION_WEIGHTS

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation, Samples

__all__ = ["features_of", "load", "network_of", "pooled_features"]

NAME = "inception-v3-compat"
"""What torch-fidelity calls the network that was ported from TensorFlow with its weights."""


def load(path: str | Path, device: str | torch.device = "cpu") -> FeatureNetwork:
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
    return FeatureNetwork(network.to(device), name, sha256[:16])


def network_of(evaluation: "Evaluation") -> FeatureNetwork:
    """Returns the network of an evaluation, which several metrics share."""
    return evaluation.once(load, evaluation.file("inception_weights"), evaluation.device)


def features_of(evaluation: "Evaluation", samples: "Samples") -> Iterator[tuple[Tensor, ...]]:
    """Yields the pooled features, ``(B, 2048)``, and the logits without bias, ``(B, 1008)``."""
    return feature_network.features_of(evaluation, samples, network_of(evaluation), "inception")


def pooled_features(evaluation: "Evaluation", samples: "Samples") -> Tensor:
    """Returns the features of all samples at once, of shape ``(N, 2048)``."""
    return torch.cat([pooled for pooled, *_ in features_of(evaluation, samples)])
