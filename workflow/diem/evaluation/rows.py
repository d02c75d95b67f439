"""Rows: one number each, with all that made it. Tables and figures are built of them alone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from diem import __version__
from diem.errors import DiemError
from diem.evaluation.metrics import Entries, labels
from diem.evaluation.metrics.base import P_VALUE, Measurement
from diem.files.atomic import REMEDY
from diem.files.tables import read_csv, write_csv

__all__ = [
    "CARD",
    "check_place",
    "errors_of",
    "metric_rows",
    "over_seeds",
    "provenance",
    "read_rows",
    "seed_count",
    "software",
    "write_rows",
]

CARD = (
    "experiment",
    "run",
    "observations",
    "stage",
    "lap",
    "subject",
    "metric",
    "value",
    "standard_error",
    "split",
    "samples",
    "reference",
    "reference_samples",
    "extractor",
    "extractor_digest",
    "extractor_accuracy",
    "sampler",
    "sampler_steps",
    "denoiser_evaluations",
    "precision",
    "optimizer_steps",
    "seed",
    "diem",
    "torch",
)
"""The columns of a row, in order.

``stage`` is ``floor`` (the fitted Gaussian), ``lap`` or ``ceiling`` (the same network trained on
clean data; ``run`` is then the first run that it is the ceiling of). ``subject`` says what was
measured: ``prior`` (unconditional samples), ``e_step`` (the posterior samples that the prior was
trained on, drawn by the lap before), ``posterior`` (posterior samples of test observations),
``posterior_mean`` (their mean) or ``adjoint`` (``A' y``, which needs no prior and has no stage).
``standard_error`` is that of a value that is a mean over observations or samples, of one seed.
"""

NUMBER = ("run", "observations", "stage", "lap", "subject", "metric", "sampler_steps")
"""The columns that tell the numbers of one seed apart."""

FORMER = tuple(name for name in CARD if name != "standard_error")
"""The columns of a row of diem 0.3."""

UNSAMPLED = {"exact": "drawn exactly", "closed form": "in closed form"}
"""How samples of no diffusion sampler were drawn, in words."""


def metric_rows(
    metric: str, measurements: Iterable[Measurement], card: Mapping[str, Any], seed: int
) -> list[dict[str, Any]]:
    """Returns the rows of a metric.

    Arguments:
        metric: The metric's name.
        measurements: Its numbers.
        card: What made all of them; the card of a number comes before it.
        seed: The configuration's seed.
    """
    shared = {**card, "seed": seed, "diem": __version__, "torch": torch.__version__}
    rows = []
    for value, subject, own, name, error in measurements:
        number = {"subject": subject, "metric": name or metric, "value": float(value)}
        if error is not None:
            number["standard_error"] = float(error)
        row = {**shared, **number, **own}
        rows.append({column: row.get(column, "") for column in CARD})
    return rows


def read_rows(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Reads metric rows, as text but for ``value`` and ``lap``, so that nothing is reformatted.

    Arguments:
        paths: Files of rows, in the order in which their contents shall appear.

    Raises:
        DiemError: If a file is missing, damaged, was edited, or stands in another's place.
    """
    tables = [_of_file(path) for path in paths]
    return pd.concat(tables, ignore_index=True)


def _of_file(path: str | Path) -> pd.DataFrame:
    rows = read_csv(path, former=FORMER, dtype=str, keep_default_na=False)
    if list(rows.columns) == list(FORMER):
        rows["standard_error"] = ""
    try:
        # Not pandas' own parser of numbers, which may miss the last digit.
        rows = rows.assign(
            value=rows["value"].map(lambda text: float(text or "nan")), lap=rows["lap"].map(int)
        )
    except (KeyError, ValueError):
        raise DiemError(f"{path}: these are no metric rows: {REMEDY}.") from None
    for row in rows.drop_duplicates(["experiment", "run", "observations", "lap"]).to_dict(
        "records"
    ):
        check_place(path, row)
    return rows


PLACES = (
    r"(?P<experiment>[^/]+)/runs/(?P<run>[^/]+)/lap_(?P<lap>\d+)/[^/]+",
    r"(?P<experiment>[^/]+)/observations/(?P<observations>[^/]+)/floor/[^/]+",
    r"(?P<experiment>[^/]+)/ceilings/(?P<run>[^/]+)/(?P<observations>[^/]+)/[^/]+",
)
"""Where evaluations lie, and what their cards say there."""


def check_place(path: str | Path, card: Mapping[Any, Any]) -> None:
    """Refuses an evaluation that stands in the place of another, as its card tells.

    Arguments:
        path: Its file.
        card: Its card.

    Raises:
        DiemError: If the path names another experiment, run, lap or observations.
    """
    for place in PLACES:
        # Nothing is asked of files that lie elsewhere.
        found = re.search(f"{place}$", Path(path).as_posix())
        for key, value in (found.groupdict() if found else {}).items():
            told = card.get(key, value)
            if str(told) != (str(int(value)) if key == "lap" else value):
                raise DiemError(
                    f"{path}: these numbers are of another place: their {key} is {told}: {REMEDY}."
                )


def over_seeds(rows: pd.DataFrame, metrics: Entries = ()) -> pd.DataFrame:
    """Returns the means over the seeds at which an entry has run, with their standard errors.

    Rows of one seed stay as they are. Of p-values it is twice the mean, which is one again however
    they depend on each other, as those of the same held-out data do; it has no standard error.

    References:
        | Combining p-values via averaging (Vovk & Wang, 2020)
        | https://arxiv.org/abs/1212.4966

    Arguments:
        rows: Metric rows of one entry, see :func:`read_rows`; those of its first seed come first.
        metrics: The entries of metrics that may be of one's own.

    Returns:
        A row for each of the first seed's, in their order: ``standard_error`` is that of the mean
        over seeds, and ``seed`` names all of them.

    Raises:
        DiemError: If a number is missing at a seed.
    """
    seeds = list(rows["seed"].unique())
    if len(seeds) == 1:
        return rows
    by_number = rows.groupby([name for name in NUMBER if name in rows], sort=False)
    if (by_number["seed"].nunique() != len(seeds)).any() or (by_number.size() != len(seeds)).any():
        raise DiemError(f"These rows have not the same numbers at the seeds {', '.join(seeds)}.")
    merged = by_number.first(skipna=False).reset_index()
    values = by_number["value"]
    # Not-a-number at a seed is one of the mean.
    merged["value"] = values.agg(lambda found: found.mean(skipna=False)).to_numpy()
    merged["standard_error"] = (values.std(ddof=1) / len(seeds) ** 0.5).map(repr).to_numpy()
    of_p = merged["metric"].isin(_p_values(metrics))
    merged.loc[of_p, "value"] = (2 * merged["value"]).clip(upper=1.0)
    merged.loc[of_p, "standard_error"] = ""
    merged["seed"] = ", ".join(seeds)
    for name in ("extractor_digest", "extractor_accuracy"):
        if name in rows:
            told = by_number[name].agg(lambda found: ", ".join(dict.fromkeys(found)))
            merged[name] = told.to_numpy()
    return merged[list(rows.columns)]


def _p_values(metrics: Entries = ()) -> list[str]:
    return [name for name, label in labels(metrics).items() if label.unit == P_VALUE]


def seed_count(seeds: Any) -> int:
    """Returns over how many seeds a number is a mean, of what its row tells in ``seed``."""
    return str(seeds).count(",") + 1


def errors_of(table: pd.DataFrame) -> list[str]:
    """Returns what the standard errors of rows or of a table are: a sentence, or none.

    Arguments:
        table: The rows, or a table with the column ``seed`` and columns ``standard error of`` ...
    """
    if not any(str(name).replace("_", " ").startswith("standard error") for name in table):
        return []
    seeds = str(table["seed"].iloc[0])
    if seed_count(seeds) > 1:
        told = f"±: one standard error of the mean over the seeds {seeds}"
        names = set(table.get("metric", table))
        if any(P_VALUE in str(name) for name in names) or names.intersection(_p_values()):
            told += "; of p-values twice their mean, at most 1, a p-value again"
        return [f"{told}."]
    return ["±: one standard error over observations or samples, of this seed alone."]


def write_rows(path: str | Path, rows: pd.DataFrame | Sequence[Mapping[Any, Any]]) -> None:
    """Writes metric rows as CSV with their digest, whole or not at all."""
    write_csv(path, pd.DataFrame(rows))


def provenance(row: Mapping[Any, Any] | pd.Series) -> str:
    """Returns what made the number of a row, in words: samples, sampler, reference, extractor."""
    samples = f"{int(row['samples']):,} samples"
    if row["split"] != "none":
        samples += f" ({row['split']} split)"
    if row["sampler"] in UNSAMPLED:
        drawn = UNSAMPLED[row["sampler"]]
    else:
        drawn = (
            f"{row['sampler']} with {row['sampler_steps']} steps"
            f" ({row['denoiser_evaluations']} denoiser evaluations)"
        )
    phrases = [samples, drawn]
    if row["reference"]:
        size = row["reference_samples"]
        phrases.append(f"against {row['reference']}" + (f" ({int(size):,})" if size else ""))
    if row["extractor"]:
        known = [f"{float(part):.4f}" for part in row["extractor_accuracy"].split(", ") if part]
        accuracy = f"test accuracy {', '.join(known)}, " if known else ""
        phrases.append(f"extractor {row['extractor']} ({accuracy}{row['extractor_digest']})")
    return ", ".join(phrases)


def seeds_of(row: Mapping[Any, Any] | pd.Series) -> str:
    """Returns the seed of a row, or the seeds over which it is the mean, in words."""
    return f"seed{'s' if ',' in str(row['seed']) else ''} {row['seed']}"


def software(row: Mapping[Any, Any] | pd.Series) -> str:
    """Returns the seed and the versions that made a row, in words."""
    return f"{seeds_of(row)}, diem {row['diem']}, PyTorch {row['torch']}"
