"""The settings that ran and those of the paper side by side.

The paper's are those of its text and of its authors' code, each with its place:
``published/settings.csv``. ``config/paper.yaml`` tells which of them it does not follow.

An entry of a config takes the place of one of the paper's entries, by ``stands_for`` or by its
name; of the heuristics and of the comparisons of posterior samplers the paper has one each.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from diem.paper.pairs import Pair, pairs
from diem.report.tables.writing import NONE, Readable

__all__ = [
    "SAME",
    "differences",
    "readable_settings",
    "settings_of_the_paper",
    "settings_side_by_side",
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

SAME = "the paper's settings"


def settings_of_the_paper(path: str | Path) -> dict[tuple[str, str], dict[str, tuple[str, str]]]:
    """Reads the paper's settings.

    Arguments:
        path: ``published/settings.csv``.

    Returns:
        By section and entry, by dotted name: the value as text, and its place in the paper, in the
        authors' repository, or in that of their benchmark.
    """
    found: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    with Path(path).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            value = _as_text(yaml.safe_load(row["value"]))
            entry = found.setdefault((row["section"], row["entry"]), {})
            entry[row["key"]] = (value, row["source"])
    return found


def settings_side_by_side(
    config: Mapping[str, Any],
    paper: Mapping[str, Any],
    published: Mapping[tuple[str, str], Mapping[str, tuple[str, str]]],
) -> pd.DataFrame:
    """Returns the settings that ran and those of the paper, side by side.

    Arguments:
        config: The resolved configuration.
        paper: The configuration ``config/paper.yaml``, of which the names of entries matter.
        published: The paper's settings, see :func:`settings_of_the_paper`.

    Returns:
        A row a setting: ``section``, ``entry``, ``paper_entry``, ``key``, ``here`` and ``paper``,
        as text, empty where it is not set here or the paper does not tell it, and ``source``, the
        place of the paper's.
    """
    rows = []
    for pair in pairs(config, paper):
        ours = dict(_flat(config[pair.section][pair.ours]))
        papers = published[pair.section, pair.paper]
        for key in dict.fromkeys([*ours, *papers]):
            # What a run alone sets is beside what the paper says of all runs, or of this one.
            of_all = re.sub(r"^runs\.[^.]+\.", "", key)
            told = papers.get(key) or papers.get(of_all, ("", ""))
            rows.append((*pair, key, _as_text(ours.get(key, "")), *told))
    columns = ["section", "entry", "paper_entry", "key", "here", "paper", "source"]
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


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == {}:
        return "none"
    if isinstance(value, list):
        return ", ".join(_as_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def readable_settings(table: pd.DataFrame) -> Readable:
    """Returns the table of :func:`settings_side_by_side` for the eye."""
    header = [["Experiment"], ["Setting"], ["This run"], ["Paper"]]
    body, bold = [], set()
    for i, row in enumerate(table.to_dict("records")):
        same = row["entry"] == row["paper_entry"]
        name = row["entry"] if same else f"{row['entry']} (paper: {row['paper_entry']})"
        body.append([name, row["key"], row["here"] or NONE, row["paper"] or NONE])
        if row["paper"] not in ("", row["here"]):
            bold.add((i, 2))
    notes = [
        "Bold: what differs from the paper.",
        "Made of the configuration that ran, with its defaults, and of what the paper and its"
        " authors' code tell; the CSV file has the place of each of the paper's.",
        f"{NONE}: there is no such setting, or the paper does not tell it.",
        "config/README.md explains each.",
    ]
    return Readable(header, body, 4, notes, bold)


def differences(table: pd.DataFrame) -> dict[Pair, str]:
    """Returns how far each entry is from the paper's, in words.

    Arguments:
        table: The table of :func:`settings_side_by_side`.
    """
    texts = {}
    keys = map(Pair, table["section"], table["entry"], table["paper_entry"])
    for pair in dict.fromkeys(keys):
        of_pair = (table["section"] == pair.section) & (table["entry"] == pair.ours)
        rows = table[of_pair & (table["paper"] != "")]
        count = int((rows["here"] != rows["paper"]).sum())
        differ = f"{count} of the paper's {len(rows)} settings differ"
        texts[pair] = differ if count else SAME
    return texts
