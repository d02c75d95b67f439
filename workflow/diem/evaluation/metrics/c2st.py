"""The classifier two-sample test of prior samples against held-out data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from diem.evaluation.arrays import pair
from diem.evaluation.metrics.base import Label, Measurement, Metric, Planned, clean_test, too_few

if TYPE_CHECKING:
    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation

__all__ = ["C2ST", "standard_error", "two_sample_accuracy"]

MOST = 1024
"""The samples of each set that are told apart, at most."""

FOLDS = 5


def two_sample_accuracy(a: Array, b: Array, seed: int = 0) -> float:
    r"""Returns how often a classifier tells the samples of two sets apart that it has not seen.

    It is a random forest, with five-fold cross-validation. Of equally many samples of one
    distribution it is 0.5, and of sets that have nothing in common 1.

    References:
        | Revisiting Classifier Two-Sample Tests (Lopez-Paz & Oquab, 2017)
        | https://arxiv.org/abs/1610.06545

    Arguments:
        a: The first samples, with shape ``(N, *event)``.
        b: The second, as many, of the same event.
        seed: The seed of folds and forest.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    x = np.concatenate([values.cpu().numpy() for values in pair(a, b)])
    label = np.repeat([0, 1], [len(a), len(b)])
    forest = RandomForestClassifier(n_estimators=100, min_samples_leaf=2, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return float(cross_val_score(forest, x, label, cv=folds).mean())


def standard_error(accuracy: float, count: int) -> float:
    r"""Returns the standard error of a cross-validated accuracy.

    It is the binomial's, times :math:`\sqrt{1 + K / (K - 1)}`, since the K folds share what they
    are trained on.

    References:
        | Inference for the Generalization Error (Nadeau & Bengio, 2003)
        | https://doi.org/10.1023/A:1024068626366

    Arguments:
        accuracy: The accuracy.
        count: The number of samples that it is the mean of.
    """
    return math.sqrt(accuracy * (1 - accuracy) / count * (1 + FOLDS / (FOLDS - 1)))


class C2ST(Metric):
    """How often a classifier tells prior samples from held-out clean data, of equally many."""

    name = "c2st"
    order = 45
    labels = {
        "c2st": Label(
            *("Told from clean data", "%, perfect: 50", "↓", None),
            heading="Told from clean data (%)",
        )
    }
    needs = frozenset({"clean"})
    subject = "samples"

    def problem(self, planned: Planned) -> str | None:
        return too_few(planned, FOLDS)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        test = evaluation.test
        count = min(len(evaluation.x), len(test), MOST)
        held = evaluation.some(test, count)
        accuracy = two_sample_accuracy(evaluation.x[:count], held, evaluation.job.seed)
        card = {**evaluation.card, "samples": count, **clean_test(count)}
        error = 100 * standard_error(accuracy, 2 * count)
        yield Measurement(100 * accuracy, "prior", card, error=error)
