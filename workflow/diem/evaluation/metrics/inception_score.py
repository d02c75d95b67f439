"""The Inception score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from diem.errors import DiemError
from diem.evaluation.metrics.base import Label, Measurement, Metric, Panel, Planned
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.evaluate import Evaluation


__all__ = ["InceptionScore", "inception_score"]

SPLITS = 10
"""The parts that the Inception score is a mean of."""


def inception_score(logits: Iterable[Tensor], count: int, seed: int) -> float:
    """Returns the Inception score, the mean of :data:`SPLITS` splits of the images.

    The order of the images and the splits are torch-fidelity's.

    References:
        | Improved Techniques for Training GANs (Salimans et al., 2016)
        | https://arxiv.org/abs/1606.03498
        | https://github.com/toshas/torch-fidelity

    Arguments:
        logits: The logits without bias, as consecutive parts of shape ``(B, 1008)``.
        count: The number of images.
        seed: The seed of the images' order.

    Raises:
        DiemError: If there are fewer images than splits.
    """
    if count < SPLITS:
        raise DiemError(f"The Inception score needs {SPLITS} images or more, got {count}.")
    # The order and the splits are torch-fidelity's; sums over a split do not ask for an order.
    order = np.random.RandomState(seed).permutation(count)
    sizes = np.diff(np.arange(SPLITS + 1) * count // SPLITS)
    split = torch.empty(count, dtype=torch.int64)
    split[order] = torch.from_numpy(np.repeat(np.arange(SPLITS), sizes))
    start = 0
    marginal = negentropy = torch.zeros((), dtype=torch.float64)
    for part in logits:
        log_p = part.double().log_softmax(dim=1)
        p = log_p.exp()
        own = torch.nn.functional.one_hot(split[start : start + len(part)], SPLITS).double().T
        marginal = marginal + own @ p
        negentropy = negentropy + own @ (p * log_p).sum(dim=1)
        start += len(part)
    counts = torch.from_numpy(sizes)
    marginal = marginal / counts[:, None]
    divergence = negentropy / counts - torch.xlogy(marginal, marginal).sum(dim=1)
    return float(divergence.exp().mean())


class InceptionScore(Metric):
    """How certain and how diverse the classes of many samples are."""

    name = "inception_score"
    order = 20
    labels = {
        "inception_score": Label(
            "Inception score", f"{{extractor}}, {SPLITS} splits", "↑", least=1.0
        )
    }
    needs = frozenset({"clean", "colour"})
    subject = "samples"
    inputs = ("inception_weights",)
    panel = Panel("distance", 3)

    def problem(self, planned: Planned) -> str | None:
        few = planned.settings["samples"] < SPLITS
        return f"evaluation.samples of {SPLITS} or more" if few else None

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.evaluation import inception

        network = inception.network_of(evaluation)
        for samples in evaluation.samples:
            logits = (logits for _, logits in inception.features_of(evaluation, samples))
            value = inception_score(logits, len(samples.x), evaluation.job.seed)
            yield Measurement(value, samples.subject, {**samples.card, **network.card})
