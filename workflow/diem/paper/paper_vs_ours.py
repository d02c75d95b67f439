"""Every number that the paper published, with ours beside it.

The paper's numbers lie in ``workflow/published``, a file a table. Ours are those of the entries
that take the place of one of the paper's, see :mod:`diem.paper.hyperparameters`. Nothing is
computed here.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from diem.evaluation.rows import provenance, seeds_of
from diem.paper.heuristics.posteriors import EXACT
from diem.paper.pairs import Pair
from diem.paper.restoration.table import published_title
from diem.report.tables.labels import METRICS, metric_label
from diem.report.tables.writing import NONE, Readable, with_error

__all__ = ["paper_vs_ours", "published_numbers", "readable_numbers"]

PARTS = ["heuristics", "cifar10", "restoration"]
"""The parts of the paper's numbers, in the order of the table."""

COLUMNS = ["part", "method", "setting", "metric", "published", "source", "key"]


class Ours(NamedTuple):
    """A number of ours.

    Attributes:
        key: By what the published number is found whose place it takes.
        value: The number, or that it is under its noise.
        metric: What it measures.
        card: What made it, in words.
        error: Its standard error, over images or seeds, or nothing.
        alone: If nothing comparable was published, the columns of a line of its own.
    """

    key: tuple
    value: float | str
    metric: str
    card: str
    error: Any = ""
    alone: Mapping[str, str] = {}


# The paper's


def published_numbers(folder: str | Path) -> pd.DataFrame:
    """Returns every published number: a row each.

    Arguments:
        folder: The folder ``workflow/published``.

    Returns:
        The columns ``part``, ``method``, ``setting``, ``metric``, ``published`` (as it is written),
        ``source``, and ``key``, by which :func:`paper_vs_ours` finds ours.
    """
    files: dict[str, Callable[[Mapping[Any, str]], Iterator[tuple]]] = {
        "heuristics_divergence": _of_heuristics,
        "cifar10": _of_images,
        "posterior_samplers_ffhq": _of_restoration,
    }
    numbers: list[tuple] = []
    for name, of_row in files.items():
        rows = pd.read_csv(Path(folder) / f"{name}.csv", dtype=str, keep_default_na=False)
        for row in rows.to_dict("records"):
            numbers += of_row(row)
    return pd.DataFrame(numbers, columns=COLUMNS)


def _of_heuristics(row: Mapping[Any, str]) -> Iterator[tuple]:
    """Yields the numbers of a row of the divergences, by :data:`COLUMNS`."""
    sigma, source = row["sigma"], row["source"]
    for covariance in (name for name in row if name not in ("sigma", "source")):
        words = "heuristics", covariance, f"sigma_t {sigma}", "divergence (median)"
        yield *words, row[covariance], source, (float(sigma), covariance)


def _of_images(row: Mapping[Any, str]) -> Iterator[tuple]:
    """Yields the numbers of a row of corrupted CIFAR-10, by :data:`COLUMNS`."""
    heuristic, corruption = row["heuristic"], float(row["corruption"])
    method = row["method"] + (f" ({heuristic})" if heuristic else "")
    for metric in (name for name in row if name in METRICS and row[name]):
        words = "cifar10", method, f"{corruption:.0%} missing", METRICS[metric].name
        yield *words, row[metric], row["source"], (row["method"], heuristic, corruption, metric)


def _of_restoration(row: Mapping[Any, str]) -> Iterator[tuple]:
    """Yields the numbers of a row of the posterior samplers, by :data:`COLUMNS`."""
    task, steps, iterations = row["task"], row["steps"], row["iterations"]
    title = published_title(row["method"])
    method = title + (f" ({iterations})" if iterations else "")
    setting = f"{task.replace('_', ' ')}, {steps} steps"
    for metric in (name for name in METRICS if name in row):
        words = "restoration", method, setting, METRICS[metric].name
        yield *words, row[metric], row["source"], (task, title, iterations, int(steps), metric)


# Ours


def paper_vs_ours(
    published: pd.DataFrame,
    differences: Mapping[Pair, str],
    heuristics: Mapping[str, pd.DataFrame],
    images: Mapping[str, tuple[pd.DataFrame, Mapping[str, Mapping[str, Any]]]],
    restoration: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """Returns every published number with ours beside it, and what made ours.

    Arguments:
        published: The table of :func:`published_numbers`.
        differences: The words of :func:`diem.paper.hyperparameters.differences`.
        heuristics: By entry, the table of :func:`diem.paper.heuristics.table.divergence_table`.
        images: By experiment that takes the place of corrupted CIFAR-10, its metric rows, and of
            each run its ``heuristic`` and ``corruption``.
        restoration: By entry, the table of
            :func:`diem.paper.restoration.table.restoration_table`.

    Returns:
        The columns of ``published`` without ``key``; ``entry``, ``ours``, its ``standard_error``,
        ``our_metric``,
        ``scale`` (how far its settings are from the paper's) and ``card``, empty where nothing of
        ours takes the number's place; a number that several entries have is repeated. A number of
        ours that measures what was not published has a line of its own.
    """
    scale = {(pair.section, pair.ours): words for pair, words in differences.items()}
    places: dict[tuple, list[dict[str, Any]]] = {}
    alone: list[dict[str, Any]] = []

    def add(part: str, section: str, entry: str, numbers: Iterator[Ours]) -> None:
        for key, value, metric, text, error, line in numbers:
            cells = {"entry": entry, "ours": value, "our_metric": metric, "card": text}
            cells |= {"standard_error": error, "scale": scale[section, entry]}
            if line:
                alone.append({"part": part, **line, "metric": metric, **cells})
            else:
                places.setdefault((part, *key), []).append(cells)

    for name, table in heuristics.items():
        add("heuristics", "heuristics", name, _our_heuristics(table))
    for name, (rows, runs) in images.items():
        add("cifar10", "experiments", name, _our_images(rows, runs))
    for name, table in restoration.items():
        add("restoration", "restoration", name, _our_restoration(table))

    columns = ["entry", "ours", "standard_error", "our_metric", "scale", "card"]
    nothing = dict.fromkeys(columns, "")
    lines = [
        {**row, **cells}
        for row in published.to_dict("records")
        for cells in places.get((row["part"], *row["key"]), [nothing])
    ]
    first = ["part", "method", "setting", "metric", "published"]
    table = pd.DataFrame([*lines, *alone], columns=[*first, *columns, "source"]).fillna("")
    return table.sort_values("part", key=lambda part: part.map(PARTS.index), kind="stable")


def _our_heuristics(table: pd.DataFrame) -> Iterator[Ours]:
    noises = table[table["covariance"] == EXACT].set_index("sigma")["median"]
    for row in table.to_dict("records"):
        key, noise = (float(row["sigma"]), row["covariance"]), noises.get(row["sigma"], 0.0)
        value = row["median"] if row["median"] > noise else f"< {noise:.1e} (noise)"
        yield Ours(key, value, "truncated divergence (median)", row["card"])


def _our_images(rows: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]) -> Iterator[Ours]:
    """Yields the numbers of each run's last lap.

    A Frechet distance on other features than Inception's is no FID, and stands beside none.
    """
    rows = rows[(rows["stage"] == "lap") & (rows["subject"] == "prior")]
    for run in rows["run"].unique():
        group = rows[rows["run"] == run]
        last = group[group["lap"] == group["lap"].max()]
        metrics = ("fid", "fd_dinov2", "inception_score", "frechet_distance")
        for row in last[last["metric"].isin(metrics)].to_dict("records"):
            name, covariance, missing = row["metric"], *runs[run].values()
            text = f"lap {row['lap']}, {provenance(row)}, {seeds_of(row)}"
            label, alone = metric_label(name, row["extractor"]), {}
            if name == "frechet_distance":
                setting = "" if missing is None else f"{missing:.0%} missing"
                alone = {"method": f"DiEM ({covariance})", "setting": setting}
            key = "DiEM", covariance, missing, name
            yield Ours(key, row["value"], label, text, row["standard_error"], alone)


def _our_restoration(table: pd.DataFrame) -> Iterator[Ours]:
    for row in table.to_dict("records"):
        setting = row["task"], row["method"], row["iterations"], int(row["steps"])
        for metric in (name for name in METRICS if not pd.isna(row.get(name))):
            name, text = METRICS[metric].name, row[f"{metric}_card"]
            yield Ours((*setting, metric), row[metric], name, text, row[f"{metric}_standard_error"])


def readable_numbers(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`paper_vs_ours` for the eye: the lines that have ours.

    Cards and sources are gathered in notes.
    """
    shown = table[table["entry"] != ""]
    header = [["Part"], ["Method"], ["Setting"], ["Metric"], ["Published"]]
    header += [["Ours"], ["Our metric"], ["Entry"]]
    body = []
    for row in shown.to_dict("records"):
        error = float(row["standard_error"]) if row["standard_error"] != "" else None
        ours = row["ours"] if isinstance(row["ours"], str) else with_error(row["ours"], error)
        same = row["our_metric"] == row["metric"]
        cells = [ours, NONE if same else row["our_metric"], row["entry"] or NONE]
        keys = ("part", "method", "setting", "metric")
        body.append([*(row[key] for key in keys), row["published"] or NONE, *cells])
    notes = []
    for entry, rows in shown.groupby("entry", sort=False):
        notes.append(f"{entry}: {rows['scale'].iloc[0]}; for example {rows['card'].iloc[0]}.")
    for part, rows in table[table["source"] != ""].groupby("part", sort=False):
        notes.append(f"Published, {part}: {'; '.join(rows['source'].unique())}.")
    left = len(table) - len(shown)
    if left:
        notes.append(f"{left} published numbers of which nothing was run here are in the CSV.")
    notes.append(
        "A number of ours is a reproduction only where no setting differs from the paper; the card"
        f" of each is in the CSV. {NONE}: not published, or the same metric."
    )
    return Readable(header, body, 4, notes)
