"""What came out of a comparison of heuristics, in a sentence."""

from pathlib import Path

from diem.files.tables import read_csv
from diem.paper.heuristics.posteriors import EXACT
from diem.report.page.outcomes import Outcome

__all__ = ["of_heuristics"]


def of_heuristics(name: str, path: str | Path) -> Outcome:
    """Returns at how many noise levels each covariance is the best.

    At a level, covariances tie whose medians lie above the lowest one by less than two sets of the
    true distribution differ by.

    Arguments:
        name: The entry's name.
        path: Its table, see :func:`diem.paper.heuristics.table.divergence_table`.
    """
    medians = read_csv(path).pivot(index="sigma", columns="covariance", values="median")
    noise, choices = medians[EXACT], medians.drop(columns=EXACT)
    best = choices.sub(choices.min(axis=1), axis=0).lt(noise, axis=0) | choices.eq(
        choices.min(axis=1), axis=0
    )
    counts = best.sum().sort_values(ascending=False, kind="stable")
    told = ", ".join(f"{covariance} at {count}" for covariance, count in counts.items())
    return Outcome(
        "heuristics",
        name,
        f"Lowest median divergence, or a tie with it within the noise: {told} of"
        f" {len(medians)} noise levels.",
    )
