"""The paper beside what ran: its settings, and every number that it published.

``config/paper.yaml`` holds the paper's settings, and ``workflow/published`` its numbers. An entry
of a config takes the place of one of the paper's entries, by ``stands_for`` or by its name; of the
heuristics and of the posterior samplers the paper has one each. Nothing is computed here.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from diem.config.resolve import Pair, pairs
from diem.paper.restoration_table import method_name
from diem.report.tables import METRICS, NONE, Readable, card, metric_label, rounded

__all__ = [
    "Pair",
    "beside",
    "hyperparameters",
    "hyperparameters_readable",
    "pairs",
    "published_numbers",
    "readable",
    "scales",
]

LABELS = {
    "recipe",
    "published",
    "figures",
    "stands_for",
    "label",
    "path",
    "weights",
    "lpips_weights",
}
"""Keys that are no settings of the method."""

SAME = "the settings of config/paper.yaml"


def hyperparameters(config: Mapping[str, Any], paper: Mapping[str, Any]) -> pd.DataFrame:
    """Returns the settings that ran and those of the paper, side by side.

    Arguments:
        config: The resolved configuration.
        paper: The paper's, resolved too.

    Returns:
        A row a setting: ``section``, ``entry``, ``paper_entry``, ``key``, ``here`` and ``paper``,
        as text, empty where one of the two lacks the setting.
    """
    rows = []
    for pair in pairs(config, paper):
        here = dict(_flat(config[pair.section][pair.ours]))
        there = dict(_flat(paper[pair.section][pair.paper]))
        for key in dict.fromkeys([*here, *there]):
            told = (_told(settings.get(key, "")) for settings in (here, there))
            rows.append((pair.section, pair.ours, pair.paper, key, *told))
    columns = ["section", "entry", "paper_entry", "key", "here", "paper"]
    return pd.DataFrame(rows, columns=columns)


def _flat(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the settings of an entry by dotted names; of its runs, what makes them differ."""
    for key, value in entry.items():
        if key in LABELS:
            continue
        if key == "runs":
            shared = dict(_flat({k: v for k, v in entry.items() if k != "runs"}))
            for run, settings in value.items():
                for name, setting in _flat(settings):
                    if shared.get(name) != setting:
                        yield f"runs.{run}.{name}", setting
        elif isinstance(value, Mapping) and value:
            for name, setting in _flat(value):
                yield f"{key}.{name}", setting
        else:
            yield key, value


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == {}:
        return "none"
    if isinstance(value, list):
        return ", ".join(_told(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def hyperparameters_readable(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`hyperparameters` for the eye."""
    header = [["Experiment"], ["Setting"], ["This run"], ["Paper"]]
    body = []
    for row in table.to_dict("records"):
        same = row["entry"] == row["paper_entry"]
        name = row["entry"] if same else f"{row['entry']} (paper: {row['paper_entry']})"
        body.append([name, row["key"], row["here"] or NONE, row["paper"] or NONE])
    notes = [
        "Made of the configuration that ran and of config/paper.yaml; defaults are filled in.",
        f"{NONE}: there is no such setting. config/README.md explains each.",
    ]
    return Readable(header, body, 4, notes)


def scales(table: pd.DataFrame) -> dict[Pair, str]:
    """Returns how far each entry is from the paper's, in words.

    Arguments:
        table: The table of :func:`hyperparameters`.
    """
    told = {}
    for key, rows in table.groupby(["section", "entry", "paper_entry"], sort=False):
        count = int((rows["here"] != rows["paper"]).sum())
        told[Pair(*key)] = f"{count} of {len(rows)} settings differ from the paper" * (count > 0)
    return {pair: text or SAME for pair, text in told.items()}


def published_numbers(folder: str | Path) -> pd.DataFrame:
    """Returns every published number: a row each.

    Arguments:
        folder: The folder ``workflow/published``.

    Returns:
        The columns ``part`` (the file's name), ``method``, ``setting``, ``metric``, ``published``
        (as it is written), ``source``, and ``key``, by which :func:`beside` finds ours.
    """
    rows = []
    folder = Path(folder)
    options = {"dtype": str, "keep_default_na": False}
    for row in pd.read_csv(folder / "heuristics_divergence.csv", **options).to_dict("records"):
        for covariance in (name for name in row if name not in ("sigma", "source")):
            key = (float(row["sigma"]), covariance)
            told = ("heuristics", covariance, f"sigma_t {row['sigma']}", "divergence (median)")
            rows.append((*told, row[covariance], row["source"], key))
    for row in pd.read_csv(folder / "cifar10.csv", **options).to_dict("records"):
        heuristic = f" ({row['heuristic']})" if row["heuristic"] else ""
        for metric in ("fid", "inception_score"):
            key = (row["method"], row["heuristic"], float(row["corruption"]), metric)
            setting = f"{float(row['corruption']):.0%} missing"
            told = ("cifar10", row["method"] + heuristic, setting, METRICS[metric].name)
            rows.append((*told, row[metric], row["source"], key))
    for row in pd.read_csv(folder / "posterior_samplers_ffhq.csv", **options).to_dict("records"):
        method = method_name(row["method"])
        iterations = f" ({row['iterations']})" if row["iterations"] else ""
        for metric in ("psnr", "ssim", "lpips"):
            key = (row["task"], method, row["iterations"], int(row["steps"]), metric)
            setting = f"{row['task'].replace('_', ' ')}, {row['steps']} steps"
            told = ("restoration", method + iterations, setting, METRICS[metric].name)
            rows.append((*told, row[metric], row["source"], key))
    columns = ["part", "method", "setting", "metric", "published", "source", "key"]
    return pd.DataFrame(rows, columns=columns)


def beside(
    published: pd.DataFrame,
    scale: Mapping[Pair, str],
    heuristics: Mapping[str, pd.DataFrame],
    images: Mapping[str, tuple[pd.DataFrame, Mapping[str, Mapping[str, Any]]]],
    restoration: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """Returns every published number with ours beside it, its scale and its card.

    Arguments:
        published: The table of :func:`published_numbers`.
        scale: The words of :func:`scales`.
        heuristics: By entry, the table of :func:`diem.paper.heuristics.summary`.
        images: By experiment that takes the place of corrupted CIFAR-10, its metric rows, and of
            each run its ``heuristic`` and ``corruption``.
        restoration: By entry, the table of :func:`diem.paper.restoration_table.beside`.

    Returns:
        The columns of ``published`` without ``key``; ``entry``, ``ours``, ``our_metric``,
        ``scale`` and ``card``, empty where nothing of ours takes the number's place; a number that
        several entries have is repeated.
    """
    ours: dict[tuple, list[dict[str, str]]] = {}
    words = {(pair.section, pair.ours): text for pair, text in scale.items()}

    def add(part: str, key: tuple, section: str, entry: str, value, metric: str, made: str) -> None:
        told = {"entry": entry, "ours": value, "our_metric": metric, "card": made}
        ours.setdefault((part, *key), []).append({**told, "scale": words[section, entry]})

    for name, table in heuristics.items():
        for row in table.to_dict("records"):
            key = (float(row["sigma"]), row["covariance"])
            metric = "truncated divergence (median)"
            add("heuristics", key, "heuristics", name, row["median"], metric, row["card"])
    for name, (rows, runs) in images.items():
        for value, metric, key, made in _last_laps(rows, runs):
            add("cifar10", key, "experiments", name, value, metric, made)
    for name, table in restoration.items():
        for row in table.to_dict("records"):
            for metric in ("psnr", "ssim", "lpips"):
                if not pd.isna(row.get(metric)):
                    key = (row["task"], row["method"], row["iterations"], int(row["steps"]), metric)
                    made = row[f"{metric}_card"]
                    label = METRICS[metric].name
                    add("restoration", key, "restoration", name, row[metric], label, made)

    missing = dict.fromkeys(("entry", "ours", "our_metric", "scale", "card"), "")
    table = []
    for row in published.to_dict("records"):
        for mine in ours.get((row["part"], *row["key"]), [missing]):
            table.append({**row, **mine})
    columns = ["part", "method", "setting", "metric", "published", "entry", "ours", "our_metric"]
    return pd.DataFrame(table, columns=[*columns, "scale", "card", "source"])


def _last_laps(
    rows: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[float, str, tuple, str]]:
    """Yields value, metric, key and card of each run's last lap.

    A Frechet distance on other features than Inception's is no FID, and says so in its name; it
    stands beside the FID whose place it takes.
    """
    rows = rows[(rows["stage"] == "lap") & (rows["subject"] == "prior")]
    places = {"fid": "fid", "inception_score": "inception_score", "frechet_distance": "fid"}
    for run, group in rows.groupby("run", sort=False):
        last = group[group["lap"] == group["lap"].max()]
        for row in last[last["metric"].isin(places)].to_dict("records"):
            settings = runs[run]
            metric = places[row["metric"]]
            key = ("DiEM", settings["heuristic"], settings["corruption"], metric)
            made = f"lap {row['lap']}, {card(row)}, seed {row['seed']}"
            yield row["value"], metric_label(row["metric"], row["extractor"]), key, made


def readable(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`beside` for the eye, with cards and sources in notes."""
    header = [["Part"], ["Method"], ["Setting"], ["Metric"], ["Published"]]
    header += [["Ours"], ["Our metric"], ["Entry"]]
    body = []
    for row in table.to_dict("records"):
        ours = rounded(row["ours"]) if row["ours"] != "" else NONE
        same = row["our_metric"] in ("", row["metric"])
        mine = [ours, NONE if same else row["our_metric"], row["entry"] or NONE]
        keys = ("part", "method", "setting", "metric", "published")
        body.append([*(row[key] for key in keys), *mine])
    notes = []
    shown = table[table["entry"] != ""]
    for entry, rows in shown.groupby("entry", sort=False):
        notes.append(f"{entry}: {rows['scale'].iloc[0]}; for example {rows['card'].iloc[0]}.")
    notes += [f"Published, {part}: {'; '.join(_unique(rows['source']))}."
              for part, rows in table.groupby("part", sort=False)]  # fmt: skip
    notes.append(
        "A number of ours is a reproduction only where no setting differs from the paper; the card"
        f" of each is in the CSV. {NONE}: not run, or the same metric."
    )
    return Readable(header, body, 4, notes)


def _unique(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))
