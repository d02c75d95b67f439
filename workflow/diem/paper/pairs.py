"""Which entries of a configuration take the place of the paper's."""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Pair", "pairs"]


class Pair(NamedTuple):
    """An entry of a config, and the entry of the paper's config whose place it takes.

    Attributes:
        section: ``experiments``, ``heuristics`` or ``restoration``.
        ours: The entry's name.
        paper: The name of the paper's entry.
    """

    section: str
    ours: str
    paper: str


def pairs(config: Mapping[str, Any], paper: Mapping[str, Any]) -> list[Pair]:
    """Returns the entries of a config that take the place of one of the paper's.

    Arguments:
        config: The configuration.
        paper: The paper's configuration, of which only the names matter.
    """
    found = []
    for name, entry in config.get("experiments", {}).items():
        place = entry.get("stands_for", name)
        if place in paper["experiments"]:
            found.append(Pair("experiments", name, place))
    for section in ("heuristics", "restoration"):
        (only,) = paper[section]
        found += [Pair(section, name, only) for name in config.get(section, {})]
    return found
