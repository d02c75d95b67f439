"""Whether posterior samples vary as they should: how often their intervals hold the truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.arrays import double
from diem.evaluation.metrics.base import (
    P_VALUE,
    Label,
    Measurement,
    Metric,
    Planned,
    clean_test,
    mean_of,
)
from diem.evaluation.metrics.prediction import LEVELS, crps
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.evaluate import Evaluation

__all__ = ["Calibration", "spread_of_error"]


def spread_of_error(draws: Tensor, truth: Tensor) -> float:
    """Returns the correlation of posterior standard deviations with the mean's absolute errors.

    Arguments:
        draws: Draws of each value, with shape ``(K, n)``.
        truth: The values, with shape ``(n,)``.
    """
    error, spread = (draws.mean(dim=0) - truth).abs(), draws.std(dim=0)
    return float(torch.corrcoef(torch.stack([error, spread]))[0, 1])


class Calibration(Metric):
    """Ranks of the truth among posterior samples of test observations.

    Values that no observation depends on are scored, or all where there are none. Coverages of a
    perfect sampler are their nominal levels. The p-values are of Kolmogorov-Smirnov tests that the
    ranks of a number of the whole sample, see :mod:`diem.evaluation.ranks`, are uniform: a perfect
    sampler has one below 0.05 in one case of twenty. Where observations form groups, as the slices
    of volumes, they are of one of each group, drawn at random. The transforms are left as the
    arrays ``calibration/values`` (-1 where a value is not scored), ``calibration/total``, ...
    """

    name = "calibration"
    order = 140
    labels = {
        "calibration_coverage_50": Label("Coverage of 50 % intervals", "%", least=None),
        "calibration_coverage_90": Label("Coverage of 90 % intervals", "%", least=None),
        "calibration_crps": Label("CRPS", "data units", "↓"),
        "calibration_spread": Label(
            *("Correlation of spread and error", "", "↑", None, False, "Spread-error correlation")
        ),
        "calibration_p_total": Label("Rank of total", P_VALUE, "", None, False),
        "calibration_p_distance": Label("Rank of distance", P_VALUE, "", None, False),
        "calibration_p_low": Label(
            *("Rank of low frequencies", P_VALUE, "", None, False),
            heading="Rank, low frequencies (p-value)",
        ),
        "calibration_p_high": Label(
            *("Rank of high frequencies", P_VALUE, "", None, False),
            heading="Rank, high frequencies (p-value)",
        ),
    }
    needs = frozenset({"clean"})
    subject = "posterior"

    def problem(self, planned: Planned) -> str | None:
        if planned.settings["posterior_samples"] < 2:
            return "two posterior samples or more (evaluation.posterior_samples)"
        if planned.settings["test_observations"] < 2:
            return "two test observations or more (evaluation.test_observations)"
        few = planned.counts is not None and planned.counts["test"] < 2
        return "two test observations or more (data.test)" if few else None

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from scipy.stats import kstest

        from diem.evaluation.ranks import coverage, functionals, one_of_each, pit, unseen
        from diem.seeds import Stage, torch_generator

        posterior, truth = evaluation.posterior, double(evaluation.truth)
        draws = double(posterior.x)
        generator = torch_generator(evaluation.job.seed, Stage.CALIBRATION)
        scored = unseen(posterior.observed.operator, len(truth), generator).cpu()
        some = scored.flatten(1).any(dim=1)  # else there is nothing to score
        groups = None if evaluation.groups is None else evaluation.groups[some.numpy()]
        card = {**posterior.card, **clean_test(len(truth))}

        values = torch.where(scored, pit(draws, truth, generator), torch.nan)
        evaluation.arrays[f"{self.name}/values"] = values.nan_to_num(-1.0).float().numpy()
        for level in LEVELS:
            held = torch.where(scored, 100.0 * coverage(values, level / 100), torch.nan)
            share = held.flatten(1).nanmean(dim=1)[some]
            yield mean_of(share, "posterior", card, f"{self.name}_coverage_{level}", groups)
        score = crps(draws, truth, scored)[some]
        yield mean_of(score, "posterior", card, f"{self.name}_crps", groups)
        spread = spread_of_error(draws.transpose(0, 1)[:, scored], truth[scored])
        yield Measurement(spread, "posterior", card, f"{self.name}_spread")
        for name, functional in functionals(truth, evaluation.groups).items():
            transforms = pit(functional(draws), functional(truth), generator)
            evaluation.arrays[f"{self.name}/{name}"] = transforms.float().numpy()
            if evaluation.groups is not None:
                transforms = transforms[one_of_each(evaluation.groups, generator)]
            p = float(kstest(transforms.numpy(), "uniform").pvalue)
            yield Measurement(p, "posterior", card, f"{self.name}_p_{name}")
