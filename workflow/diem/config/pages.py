"""What a page of results shows, in which order: functions of a configuration alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diem.config.targets import alone, targets
from diem.paper.inputs import paper_targets
from diem.paper.pairs import Pair

__all__ = ["PAPER", "page_parts"]

WILDCARDS = {
    "experiments": "experiment",
    "heuristics": "heuristics",
    "restoration": "comparison",
    "posterior": "posterior",
}
"""What the rules call an entry of each section."""

PAPER = "paper"
"""The section of what is of no single entry: the tables beside the paper's."""

SHOWN = (".png", ".html")
"""How the names of figures and tables end that a page shows."""

Captions = Mapping[str, tuple[str, str | Path]]


def page_parts(
    config: Mapping[str, Any], pairs: Sequence[Pair], captions: Captions
) -> list[dict[str, Any]]:
    """Returns the parts of a page: the entries of the configuration, and what is of all of them.

    Arguments:
        config: The configuration, see :func:`diem.config.resolve.resolve`; for the page of one
            entry what :func:`diem.config.targets.alone` returns.
        pairs: The entries that take the place of one of the paper's.
        captions: The label and the file of the caption of all that is shown, by its path, in which
            a wildcard stands for the name of the entry.

    Returns:
        A mapping for each part: ``section``, ``name``, the ``wildcards`` that its captions may
        speak of, and ``shown``, which has the ``path`` in the folder of the results, the ``title``
        and the ``caption`` of each figure and table.
    """
    parts = []
    for section, wildcard in WILDCARDS.items():
        for name in config[section]:
            files = targets(alone(config, name, [section]), [])
            parts.append(_part(config, section, {wildcard: name}, files, captions))
    if files := paper_targets(config, pairs):
        # The numbers come before the settings.
        parts.append(_part(config, PAPER, {}, sorted(files, reverse=True), captions))
    return parts


def _part(
    config: Mapping[str, Any],
    section: str,
    wildcards: Mapping[str, str],
    files: Sequence[str],
    captions: Captions,
) -> dict[str, Any]:
    name = next(iter(wildcards.values()), "")
    told = {_named(path, wildcards): of_path for path, of_path in captions.items()}
    shown = [
        {
            "path": path.removeprefix(f"{config['results']}/"),
            "title": _named(_title(told[path][0]), wildcards),
            "caption": Path(told[path][1]).read_text(encoding="utf-8"),
        }
        for path in sorted(files, key=lambda path: not path.endswith(SHOWN[0]))  # figures first
        if path in told and path.endswith(SHOWN)
    ]
    return {"section": section, "name": name, "wildcards": dict(wildcards), "shown": shown}


def _named(pattern: str, wildcards: Mapping[str, str]) -> str:
    for wildcard, name in wildcards.items():
        pattern = pattern.replace(f"{{{wildcard}}}", name)
    return pattern


def _title(label: str) -> str:
    """Returns a label of Snakemake's report as a heading below that of its entry."""
    title = label.rpartition("}: ")[2].removeprefix("figure: ").replace("_", " ")
    return title[:1].upper() + title[1:]
