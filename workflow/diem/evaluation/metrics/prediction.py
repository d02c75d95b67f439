"""The prediction of hidden observations, which the lap to use is chosen by, without clean data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from diem.components import Count, option
from diem.errors import DiemError
from diem.evaluation.arrays import double
from diem.evaluation.metrics.base import Label, Measurement, Metric, Planned, mean_of
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from diem.data.observations import Observed
    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation
    from diem.operators.base import Operator

__all__ = ["Prediction", "crps", "shown_half"]

LEVELS = (50, 90)
"""The central intervals whose coverage is told, in percent."""

AT_ONCE, VALUES = 256, 2**22
"""The most observations that are predicted at once, and the most values of their draws, where an
evaluation does not hold more anyway."""

SPLIT = "validation"
"""The observations that are predicted, which no prior is trained on."""


def crps(draws: Array, y: Array, kept: Array) -> Tensor:
    r"""Returns the continuous ranked probability score of predictions, averaged over values.

    .. math:: \frac{1}{K} \sum_k |s_k - y| - \frac{1}{2 K (K - 1)} \sum_{k, l} |s_k - s_l|

    It has the unit of :math:`y`. No other distribution than that of :math:`y` has a lower
    expectation, whatever the number of draws, so that it compares models by their predictions of
    values that they have not seen.

    References:
        | Strictly Proper Scoring Rules, Prediction, and Estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437

    Arguments:
        draws: Draws of the predictive distribution, with shape :math:`(N, K, *event)` and at least
            two of each.
        y: The values, with shape :math:`(N, *event)`.
        kept: Which values count, booleans of the same shape.

    Returns:
        The scores, with shape :math:`(N,)`; NaN where no value counts.
    """
    draws, y = double(draws), double(y)
    kept = torch.as_tensor(kept, dtype=torch.bool, device=y.device).flatten(1)
    count = draws.shape[1]
    draws, y = draws.flatten(2), y.flatten(1)
    miss = (draws - y[:, None]).abs().mean(dim=1)
    # Of sorted draws, the sum over pairs is one over ranks.
    rank = 2.0 * torch.arange(count, dtype=y.dtype, device=y.device) - count + 1
    spread = (draws.sort(dim=1).values * rank[:, None]).sum(dim=1) / (count * (count - 1))
    return torch.where(kept, miss - spread, 0.0).sum(dim=1) / kept.sum(dim=1)


class Prediction(Metric):
    """How well halves of validation observations are predicted from their other halves.

    The lap to use is chosen by it, so that it looks at no test observation: what is measured on
    those is of a prior that was chosen without them. Each observation is divided into two halves at
    random, all channels of a pixel together, and with them the values that tell of them
    (:meth:`diem.operators.base.Operator.together`); each half is hidden once. Posterior samples
    given the shown half are observed, with noise, and scored against the hidden half by
    :func:`crps`; and how often their central intervals hold it tells, without clean data, whether
    the error bars can be believed. Halves, noise and random streams are the same for every prior.
    The score of each observation of which some values were hidden, the mean over its halves, is
    left as the array ``prediction/score``, and where observations form groups the number of each
    one's as ``prediction/group``: standard errors are those of groups then.
    """

    name = "prediction"
    selects = True
    order = 70
    labels = {
        "prediction": Label(
            *("Prediction of hidden observations", "CRPS, data units", "↓", None),
            heading="Prediction (CRPS, data units)",
        ),
        **{
            f"prediction_coverage_{level}": Label(
                *(f"{level} % intervals of hidden observations", "%", "", None),
                heading=f"Hidden in {level} % intervals (%)",
            )
            for level in LEVELS
        },
    }
    subject = "observations"

    divisions: Count = option(
        1,
        "how often each observation is divided into two halves at random, each of which is"
        " predicted from the other",
    )

    def draws(self, settings: Mapping[str, Any], counts: Mapping[str, int]) -> int:
        predicted = min(settings["predicted_observations"], counts[SPLIT])
        return 2 * self.divisions * predicted * settings["posterior_samples"]

    def problem(self, planned: Planned) -> str | None:
        few = planned.counts is not None and planned.counts[SPLIT] < 2
        return f"two {SPLIT} observations or more (data.{SPLIT})" if few else None

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        observations, settings = evaluation.observations, evaluation.settings
        total = min(settings["predicted_observations"], observations.count(SPLIT))
        rows = observations.subset(SPLIT, total, evaluation.job.seed)
        size = max(settings["test_observations"], self._at_once(evaluation))
        parts: list[Tensor] = []
        for start in range(0, total, size):
            held = observations.load(SPLIT, rows[start : start + size])
            numbers = len(parts) * self.divisions + np.arange(1, self.divisions + 1)
            halves = [s for number in numbers for s in _scores(held, int(number), evaluation)]
            parts.append(torch.stack(halves).nanmean(dim=0))
        found = torch.cat(parts, dim=1)
        some = ~found[0].isnan()
        scores, *covered = found[:, some]
        if len(scores) < 2:
            raise DiemError(
                f"{observations.path}: the {SPLIT} observations are too few to predict hidden"
                f" values of (evaluation.metrics, {self.name!r})."
            )
        evaluation.arrays[f"{self.name}/score"] = scores.numpy()
        reference = f"hidden halves of {SPLIT} observations"
        if (groups := observations.groups(SPLIT)) is not None:
            groups = groups[rows][some.numpy()]
            evaluation.arrays[f"{self.name}/group"] = groups
            reference += f" of {len(np.unique(groups))} groups"
        compared = {
            "split": SPLIT,
            "reference": reference + observations.units(),
            "reference_samples": len(scores),
        }
        drawn = evaluation.posteriors.card(2 * self.divisions * len(scores))
        card = {**drawn, **compared}
        yield mean_of(scores, "posterior", card, groups=groups)
        for level, share in zip(LEVELS, covered, strict=True):
            yield mean_of(share, "posterior", card, f"{self.name}_coverage_{level}", groups)

    def _at_once(self, evaluation: Evaluation) -> int:
        """Returns how many observations may be predicted at once: more of small ones are faster."""
        values = evaluation.posteriors.count * math.prod(evaluation.prior.event_shape)
        return min(AT_ONCE, VALUES // values)


def shown_half(operator: Operator, count: int, generator: Generator) -> Tensor:
    """Draws which half of each observation is shown, booleans ``(count, *observation)``.

    Arguments:
        operator: The forward operators.
        count: The number of observations.
        generator: The random stream.
    """
    shape = (count, *operator.observation_shape)
    pixels = (count, 1, *shape[2:]) if len(shape) > 2 else shape
    shown = (torch.rand(pixels, generator=generator) < 0.5).expand(shape)
    return shown.flatten(1)[:, operator.together().flatten()].reshape(shape)


def _scores(held: Observed, part: int, evaluation: Evaluation) -> list[Tensor]:
    """Returns of each half of some observations the scores, and how often intervals hold it.

    Both, of shape ``(1 + levels, N)``, are NaN where nothing was hidden.
    """
    from diem.data.observations import Observed
    from diem.evaluation.ranks import coverage, pit
    from diem.operators.partial import Partial
    from diem.seeds import Stage, torch_generator

    posteriors = evaluation.posteriors
    generator = torch_generator(evaluation.job.seed, Stage.PREDICTION, 0, part)
    shape = held.y.shape
    first = shown_half(held.operator, len(held.y), generator)
    noise = torch.randn(posteriors.count, *shape, generator=generator)
    scores = []
    for number, shown in enumerate((first, ~first), start=2 * part):
        half = Partial(held.operator, shown)
        observed = Observed(half, held.y * shown, held.sigma_y, held.index)
        draws = posteriors.draw(observed, f"prediction/{number}", Stage.PREDICTION, number)
        predicted = [
            held.operator.forward(x) + held.sigma_y * n
            for x, n in zip(draws.unbind(dim=1), noise, strict=True)
        ]
        hidden = (held.operator.observed() & ~shown).expand(shape)
        predictions = torch.stack(predicted, dim=1)
        transforms = pit(predictions, held.y, generator)
        shares = [
            torch.where(hidden, 100.0 * coverage(transforms, level / 100), torch.nan)
            for level in LEVELS
        ]
        told = [crps(predictions, held.y, hidden), *(s.flatten(1).nanmean(dim=1) for s in shares)]
        scores.append(torch.stack(told))
    return scores
