"""The table of the heuristics: medians of the divergences, with the published ones beside them."""

from pathlib import Path
from typing import Any

import pandas as pd

from diem.evaluation.rows import software
from diem.paper.heuristics.posteriors import EXACT
from diem.report.tables.writing import NONE, Readable

__all__ = ["divergence_table", "readable_divergences"]


def divergence_table(rows: pd.DataFrame, published: str | Path) -> pd.DataFrame:
    """Returns median and quartiles over the cases, beside the published medians.

    Arguments:
        rows: Rows with the columns :data:`diem.paper.heuristics.divergences.COLUMNS`.
        published: The file of the published medians: a row a ``sigma``, a column a covariance, and
            the ``source``.

    Returns:
        A row for each noise level and covariance: ``sigma``, ``covariance``, ``cases``,
        ``lower_quartile``, ``median``, ``upper_quartile``, ``published`` (NaN where nothing is),
        its ``source``, and the ``card`` of our numbers.
    """
    medians = pd.read_csv(published)
    medians = medians.melt(["sigma", "source"], var_name="covariance", value_name="published")
    values = rows.groupby(["sigma", "covariance"], sort=False)["value"]
    table = values.agg(
        cases="size",
        lower_quartile=lambda value: value.quantile(0.25),
        median="median",
        upper_quartile=lambda value: value.quantile(0.75),
    ).reset_index()
    table = table.merge(medians, how="left", on=["sigma", "covariance"])
    return table.assign(source=table["source"].fillna(""), card=_words(rows))


def _words(rows: pd.DataFrame) -> str:
    """Returns what made the numbers of rows, in words."""
    row = rows.iloc[0]
    cases = rows["case"].nunique()
    return (
        f"{cases:,} random curves of {row['components']} components in {row['dimensions']}"
        f" dimensions, thickness {row['thickness']:g}, {row['rows']} observed value(s), sigma_y"
        f" {row['sigma_y']:g}; {row['samples']:,} samples resampled from {row['prior_samples']:,}"
        f" of the prior; at most {row['iterations']:,} Sinkhorn iterations from zero, lambda"
        f" {row['regularization']:g}, tolerance {row['tolerance']:g}, floor {row['floor']:g};"
        f" {software(row)}"
    )


def _told(value: Any, noise: float) -> str:
    """Returns a divergence as text, which a value under the noise is not."""
    return f"{value:.1e}" if value > noise else f"< {noise:.1e}"


def readable_divergences(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`divergence_table` for the eye: a row a noise level."""
    names = list(dict.fromkeys(table["covariance"]))
    header = [["Noise level"]]
    for name in names:
        header.append(["q = p (noise)"] if name == EXACT else [name, "↓"])
        if table.loc[table["covariance"] == name, "published"].notna().any():
            header.append([name, "published"])
    body = []
    for sigma, level in table.groupby("sigma"):
        cells = level.set_index("covariance")
        line = [f"{sigma:g}"]
        medians = dict(zip(level["covariance"], level["median"], strict=True))
        noise = medians.get(EXACT, 0.0)
        for name in names:
            cell = cells.loc[name]
            line.append(_told(cell["median"], 0.0 if name == EXACT else noise))
            if [name, "published"] in header:
                line.append(NONE if pd.isna(cell["published"]) else f"{cell['published']:.1e}")
        body.append(line)
    notes = [
        "Ours: medians of the truncated divergence, in squared data units:"
        f" {table['card'].iloc[0]}.",
        "q = p: median of the magnitude for two independent sets of p(x_t | y), which is the noise"
        " of the other columns; what is under it is told as such, and is in the CSV.",
        *(f"Published: {source}." for source in table["source"].unique() if source),
    ]
    return Readable(header, body, 1, notes)
