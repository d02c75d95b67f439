"""Entries of a configuration at several seeds: replicates, whose rows stand for one mean.

An entry's first seed runs under its own name, so that seeds can be added to finished results. Each
other one runs as a replicate, an entry like the first that no figure and no table is named after.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["SECTIONS", "Replicate", "all_entries", "replicates", "same_entry", "seed_of"]

SECTIONS = ("experiments", "restoration")
"""What runs at every seed. The heuristics have their spread over cases."""


class Replicate(NamedTuple):
    """An entry at another seed than the first.

    Attributes:
        name: Its name, and that of its folder.
        of: The entry's name.
        seed: The seed.
    """

    name: str
    of: str
    seed: int


def replicates(config: Mapping[str, Any], section: str) -> Iterator[Replicate]:
    """Yields the replicates of a section's entries, of a section that runs at every seed."""
    for seed in (config.get("seeds") or [])[1:] if section in SECTIONS else []:
        for name in config[section]:
            yield Replicate(f"{name}-seed{seed}", name, seed)


def all_entries(config: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Returns the entries of a section, at every seed, by name."""
    entries = config[section]
    return {**entries, **{each.name: entries[each.of] for each in replicates(config, section)}}


def same_entry(config: Mapping[str, Any], section: str, name: str) -> list[str]:
    """Returns the names of an entry at all of its seeds: its own, and its replicates'."""
    return [name, *(each.name for each in replicates(config, section) if each.of == name)]


def seed_of(config: Mapping[str, Any], section: str, name: str) -> int:
    """Returns the seed of an entry or of a replicate."""
    seeds = {each.name: each.seed for each in replicates(config, section)}
    return seeds.get(name, config["seed"])
