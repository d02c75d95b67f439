"""The settings that ran and those of the paper, which ``config/paper.yaml`` holds, side by side.

An entry of a config takes the place of one of the paper's entries, by ``stands_for`` or by its
name; of the heuristics and of the comparisons of posterior samplers the paper has one each.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from diem.paper.pairs import Pair, pairs
from diem.report.tables.writing import NONE, Readable

__all__ = ["SAME", "differences", "readable_settings", "settings_side_by_side"]

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


def settings_side_by_side(config: Mapping[str, Any], paper: Mapping[str, Any]) -> pd.DataFrame:
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
        ours = dict(_flat(config[pair.section][pair.ours]))
        papers = dict(_flat(paper[pair.section][pair.paper]))
        for key in dict.fromkeys([*ours, *papers]):
            values = (_as_text(settings.get(key, "")) for settings in (ours, papers))
            rows.append((pair.section, pair.ours, pair.paper, key, *values))
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


def differences(table: pd.DataFrame) -> dict[Pair, str]:
    """Returns how far each entry is from the paper's, in words.

    Arguments:
        table: The table of :func:`settings_side_by_side`.
    """
    texts = {}
    keys = map(Pair, table["section"], table["entry"], table["paper_entry"])
    for pair in dict.fromkeys(keys):
        rows = table[(table["section"] == pair.section) & (table["entry"] == pair.ours)]
        count = int((rows["here"] != rows["paper"]).sum())
        differ = f"{count} of {len(rows)} settings differ from the paper"
        texts[pair] = differ if count else SAME
    return texts
